"""The optimizer against AdamW written out, seven steps on a small tree with stacked leaves."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm import trees
from lm.config import defaults
from lm.optim import build
from lm.optim.optimizers import OPTIMIZERS

SHAPES = {
    "embed": {"embedding": (5, 3)},
    "decoder": {"block": {"norm": {"scale": (2, 3)}, "out": {"kernel": (2, 7, 3), "bias": (2, 3)}}},
}
DECAYED = ["embed/embedding", "decoder/block/out/kernel"]


def _section(**fields):
    section = defaults("optimizer")
    section.update({"b1": 0.8, "b2": 0.9, "epsilon": 1e-3, "weight_decay": 0.2, "clip": 1.5} | fields)
    return ml_collections.FrozenConfigDict(section)


def _draw(generator, scale=1.0):
    is_shape = lambda leaf: isinstance(leaf, tuple)
    return jax.tree.map(lambda shape: scale * generator.normal(size=shape), SHAPES, is_leaf=is_shape)


def _flat(tree):
    return dict(zip(trees.paths(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def _adamw(params, gradients, section, rate, decayed):
    """Loshchilov & Hutter 2019, algorithm 2, with decay times the learning rate, after clipping the global norm."""
    first = {path: np.zeros_like(leaf) for path, leaf in params.items()}
    second = {path: np.zeros_like(leaf) for path, leaf in params.items()}
    for t, gradient in enumerate(gradients):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        factor = min(1.0, section.clip / norm) if section.clip else 1.0
        for path in params:
            g = factor * gradient[path]
            first[path] = section.b1 * first[path] + (1 - section.b1) * g
            second[path] = section.b2 * second[path] + (1 - section.b2) * g * g
            mean = first[path] / (1 - section.b1 ** (t + 1))
            square = second[path] / (1 - section.b2 ** (t + 1))
            decay = section.weight_decay if path in decayed else 0.0
            params[path] = params[path] - rate(t) * (mean / (np.sqrt(square) + section.epsilon) + decay * params[path])
    return params


@pytest.mark.parametrize(
    ("fields", "decayed"),
    [
        ({}, DECAYED),
        ({"clip": 0.0}, DECAYED),
        ({"clip": 1e6}, DECAYED),
        (
            {"no_decay": ()},
            [*DECAYED, "decoder/block/norm/scale", "decoder/block/out/bias"],
        ),
        ({"no_decay": ("embed", "bias$", "scale$")}, ["decoder/block/out/kernel"]),
        ({"no_decay": ("",)}, []),
    ],
)
def test_adamw_written_out(fields, decayed):
    section = _section(**fields)
    generator = np.random.default_rng(0)
    start = _draw(generator)
    gradients = [_draw(generator, scale) for scale in (1, 0.01, 3, 0.1, 1, 0.3, 10)]
    rate = lambda step: 0.1 / (step + 1)
    optimizer = build.optimizer(section, rate)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), start)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), gradient), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = _adamw(_flat(start), list(map(_flat, gradients)), section, rate, decayed)
    for path, leaf in _flat(params).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_have_the_dtype_and_shape_of_parameters(name):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), _draw(np.random.default_rng(0)))
    state = build.optimizer(_section(name=name), lambda step: 0.1).init(params)
    moments = {path: leaf for path, leaf in _flat(state).items() if re.search("/(mu|nu|m1|m2|trace|z)/", path)}
    assert len(moments) >= len(_flat(params)) or name == "adafactor"
    for path, leaf in moments.items():
        like = next(like for name, like in _flat(params).items() if path.endswith(name))
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype), path


def test_adafactor_keeps_a_row_and_a_column_of_every_matrix():
    params = {"decoder": {"block": {"attention": {"out": {"kernel": jnp.ones((3, 2, 5, 7))}}}}}
    state = _flat(build.optimizer(_section(name="adafactor"), lambda step: 0.1).init(params))
    sizes = {path.split("/")[-6]: leaf.size for path, leaf in state.items() if path.endswith("kernel")}
    assert sizes == {"v_row": 3 * 7, "v_col": 3 * 10, "v": 3}


@pytest.mark.parametrize(("pattern", "others"), [("embed", "kernel"), ("/block/", "embed")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_have_no_moments(name, pattern, others):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), _draw(np.random.default_rng(0)))
    optimizer = build.optimizer(_section(name=name, rates=(f"{pattern}=0",)), lambda step: 0.1)
    shapes = jax.eval_shape(optimizer.init, params)
    paths = trees.paths(shapes)
    assert not [path for path in paths if pattern in path] and [path for path in paths if others in path]
    updates, state = jax.eval_shape(optimizer.update, params, shapes, params)
    assert state == shapes and jax.tree.structure(updates) == jax.tree.structure(params)
