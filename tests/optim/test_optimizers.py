"""Every optimizer against its paper written out, where layers are leaves of their own and kernels are matrices."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm import trees
from lm.config import defaults
from lm.optim import build
from lm.optim.optimizers import OPTIMIZERS, averaged

LAYERS = 3
# path → (shape in the model, shape of a layer's leaf)
SHAPES = {
    "embed/embedding": ((11, 6), (11, 6)),
    "head/kernel": ((6, 11), (6, 11)),
    "positions/embedding": ((4, 2), (4, 2)),
    "values/embedding": ((2, 5, 3), (10, 3)),
    "decoder/norm/scale": ((6,), (6,)),
    "decoder/block/attention_norm/scale": ((LAYERS, 6), (6,)),
    "decoder/block/residual_scale": ((LAYERS,), (1,)),
    "decoder/block/attention/query/kernel": ((LAYERS, 6, 2, 5), (6, 10)),
    "decoder/block/attention/query/bias": ((LAYERS, 2, 5), (10,)),
    "decoder/block/attention/out/kernel": ((LAYERS, 2, 5, 6), (10, 6)),
    "decoder/block/feedforward/in/kernel": ((LAYERS, 6, 7), (6, 7)),
    "decoder/block/feedforward/out/kernel": ((LAYERS, 7, 6), (7, 6)),
}
FIELDS = {"b1": 0.8, "b2": 0.9, "epsilon": 1e-3, "weight_decay": 0.2, "clip": 1.5, "slow_warmup_steps": 3, "b3": 0.99}


def _rms(array):
    return np.sqrt(np.mean(array**2))


def _mean(memory, name, decay, new):
    memory[name] = decay * memory.get(name, 0.0) + (1 - decay) * new
    return memory[name]


# A direction: (what is remembered of a leaf, its gradient, the leaf, step from 1, section, path) → update.


def _adam(memory, g, p, t, s, path):
    """Kingma & Ba 2015, algorithm 1."""
    first = _mean(memory, "m", s.b1, g) / (1 - s.b1**t)
    second = _mean(memory, "v", s.b2, g * g) / (1 - s.b2**t)
    return first / (np.sqrt(second) + s.epsilon)


def _sgd(memory, g, p, t, s, path):
    memory["m"] = s.b1 * memory.get("m", 0.0) + g
    return memory["m"]


def _adafactor(memory, g, p, t, s, path):
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors) with the constants of §9."""
    decay = 1 - t**-0.8
    square = g * g + 1e-30
    if g.ndim == 2:
        rows, columns = _mean(memory, "r", decay, square.sum(1)), _mean(memory, "c", decay, square.sum(0))
        second = np.outer(rows, columns) / rows.sum()
    else:
        second = _mean(memory, "v", decay, square)
    update = g / np.sqrt(second)
    return max(1e-3, _rms(p)) * update / max(1.0, _rms(update))


def _lion(memory, g, p, t, s, path):
    """Chen et al. 2023, algorithm 2."""
    update = np.sign(s.b1 * memory.get("m", 0.0) + (1 - s.b1) * g)
    _mean(memory, "m", s.b2, g)
    return update


def _muon(memory, g, p, t, s, path):
    """Jordan et al. 2024: five quintic Newton–Schulz steps; Liu et al. 2025, eq. 4; momentum as NAdam corrects it."""
    if not re.search("block.*kernel", path):
        return _adam(memory, g, p, t, s, path)
    b = s.muon_momentum
    x = b * _mean(memory, "m", b, g) / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t)
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
    return 0.2 * np.sqrt(max(g.shape)) * x


def _ademamix(memory, g, p, t, s, path):
    """Pagliardini et al. 2024, algorithm 1 with the schedules of §3."""
    share = min(1.0, t / s.slow_warmup_steps)
    low, high = np.log(s.b1), np.log(s.b3)
    b3 = min(s.b3, np.exp(low * high / ((1 - share) * high + share * low)))
    slow = _mean(memory, "slow", b3, g)
    first = _mean(memory, "m", s.b1, g) / (1 - s.b1**t)
    second = _mean(memory, "v", s.b2, g * g) / (1 - s.b2**t)
    return (first + share * s.alpha * slow) / (np.sqrt(second) + s.epsilon)


DIRECTIONS = {
    "adamw": _adam, "sgd": _sgd, "adafactor": _adafactor, "lion": _lion, "lamb": _adam, "muon": _muon,
    "ademamix": _ademamix,
}  # fmt: skip


def _decayed(update, p, s, path):
    """Return the update with decay; cautious: Chen et al. 2025, algorithm 1."""
    if re.search("bias|scale", path):
        return update
    is_decayed = update * p >= 0 if s.cautious_decay else True
    return update + s.weight_decay * is_decayed * p


def _clipped(gradient, s, factor):
    moved = {key: g for key, g in gradient.items() if factor(key[0])}
    norm = np.sqrt(sum((g**2).sum() for g in moved.values()))
    return {key: g * min(1.0, s.clip / norm) for key, g in moved.items()}


def _written_out(leaves, gradients, s, rate, factor):
    """Return the leaves after the gradients; for schedule_free, see below, those at which gradients are taken."""
    leaves, memories = dict(leaves), {key: {} for key in leaves}
    for t, gradient in enumerate(gradients, 1):
        for key, g in _clipped(gradient, s, factor).items():
            path, p = key[0], leaves[key]
            update = _decayed(DIRECTIONS[s.name](memories[key], g, p, t, s, path), p, s, path)
            if s.name == "lamb":  # You et al. 2020, algorithm 2
                norms = np.linalg.norm(p), np.linalg.norm(update)
                update = update * (norms[0] / norms[1] if all(norms) else 1.0)
            leaves[key] = p - rate(t - 1) * factor(path) * update
    return leaves, leaves


def _schedule_free(leaves, gradients, s, rate, factor):
    """Defazio et al. 2024, algorithm 1: (y, x)."""
    x, y, z = dict(leaves), dict(leaves), dict(leaves)
    second, total, largest = dict.fromkeys(leaves, 0.0), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        largest = max(largest, rate(t - 1))
        total += largest**2
        share = largest**2 / total if total else 0.0
        for key, g in _clipped(gradient, s, factor).items():
            second[key] = s.b2 * second[key] + (1 - s.b2) * g * g
            update = g / (np.sqrt(second[key] / (1 - s.b2**t)) + s.epsilon)
            z[key] = z[key] - rate(t - 1) * factor(key[0]) * _decayed(update, y[key], s, key[0])
            x[key] = (1 - share) * x[key] + share * z[key]
            y[key] = (1 - s.b1) * z[key] + s.b1 * x[key]
    return y, x


def _layers(tree):
    """Return (path, layer) → leaf of a tree in the model's layout."""
    leaves = {}
    for path, leaf in zip(trees.paths(tree), jax.tree.leaves(tree), strict=True):
        shape = SHAPES[path][1]
        for layer, part in enumerate(np.asarray(leaf, np.float64).reshape(-1, *shape)):
            leaves[path, layer] = part
    return leaves


def _draw(generator, scale):
    tree = {}
    for path, (shape, _) in SHAPES.items():
        *sections, last = path.split("/")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = jnp.asarray(scale * generator.normal(size=shape), jnp.float32)
    return tree


@pytest.mark.parametrize("rates", [(), ("embed=0.5", "feedforward/in=0", "feedforward=2")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_its_paper_on_every_layer(name, rates):
    """Seven steps, two of them within the clip; with rates by path, decay is cautious too."""
    section = defaults("optimizer")
    section.update(FIELDS | {"name": name, "rates": rates, "cautious_decay": bool(rates)})
    section = ml_collections.FrozenConfigDict(section)
    rate = lambda step: 0.03 * (step + 1) / (1 + step // 4)
    factors = {"embed": 0.5, "feedforward/in": 0.0, "feedforward": 2.0} if rates else {}
    factor = lambda path: next((value for part, value in factors.items() if part in path), 1.0)
    generator = np.random.default_rng(5)
    params = _draw(generator, 1.0)
    params["decoder"]["block"]["attention_norm"]["scale"] *= jnp.asarray([[0.0], [1.0], [1e-4]])
    gradients = [_draw(generator, scale) for scale in (1, 0.01, 3, 0.05, 1, 0.3, 10)]
    written_out = _schedule_free if name == "schedule_free" else _written_out
    expected = written_out(_layers(params), list(map(_layers, gradients)), section, rate, factor)
    start = _layers(params)

    optimizer = build.optimizer(section, rate)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for found, wanted in zip((params, averaged(state, params)), expected, strict=True):
        for key, leaf in _layers(found).items():
            np.testing.assert_allclose(leaf, wanted[key], rtol=2e-4, atol=2e-5, err_msg=str(key))
            if not factor(key[0]):
                np.testing.assert_array_equal(leaf, start[key], err_msg=str(key))
