"""Initial weights: measured deviations of each role and scheme, and blocks that start as the identity."""

import jax
import numpy as np
import pytest

from lm import trees
from lm.config import schema
from lm.model.init import INITS
from lm.model.transformer import Transformer, initial

WIDTH, LAYERS, WIDE, HEAD = 96, 2, 320, 10  # and 6 heads, so that attention's output sums over 60 numbers

# scheme → (role, fan-in) → standard deviation
FORMULAS = {
    "gpt2": lambda role, fan_in: 0.05 / (2 * LAYERS) ** 0.5 if role == "out" else 0.05,
    "fan_in": lambda role, fan_in: 1 / fan_in**0.5,
    "small": lambda role, fan_in: 2 / LAYERS / WIDTH**0.5 if role == "out" else (2 / 5 / WIDTH) ** 0.5,
}

# path → role, fan-in
ROLES = {
    "embed/embedding": ("embedding", WIDTH),
    "values/embedding": ("embedding", WIDTH),
    "head/kernel": ("in", WIDTH),
    "decoder/block/attention/query/kernel": ("in", WIDTH),
    "decoder/block/attention/key/kernel": ("in", WIDTH),
    "decoder/block/attention/value/kernel": ("in", WIDTH),
    "decoder/block/attention/out/kernel": ("out", 6 * HEAD),
    "decoder/block/feedforward/gate/kernel": ("in", WIDTH),
    "decoder/block/feedforward/in/kernel": ("in", WIDTH),
    "decoder/block/feedforward/out/kernel": ("out", WIDE),
}

IDS = np.random.default_rng(0).integers(0, 61, (2, 7))


ROWS = IDS, np.broadcast_to(np.arange(7), (2, 7)), np.ones((2, 7), int)


@pytest.fixture(scope="module")
def model(tiny):
    """Return a function: scheme, overrides → a model of those sizes."""
    sizes = {
        "model__width": WIDTH,
        "model__layers": LAYERS,
        "model__heads": 6,
        "model__head_width": HEAD,
        "model__feedforward_width": WIDE,
        "model__vocabulary_multiple": 128,
        "model__init_std": 0.05,
    }
    return lambda scheme, **overrides: Transformer(tiny(**sizes, model__init=scheme, **overrides).model)


def test_schemes_are_the_schemas():
    assert set(INITS) == set(schema.FIELDS["model.init"].rule.choices)


@pytest.mark.parametrize("scheme", INITS)
def test_deviations(model, scheme):
    positions = "relative" if scheme == "small" else "learned"
    model = model(scheme, model__value_embeddings=1, model__gated=True, model__tied=False, model__positions=positions)
    params = jax.jit(lambda: model.init(jax.random.key(5), *ROWS)["params"])()
    params = dict(zip(trees.paths(params), map(np.asarray, jax.tree.leaves(params)), strict=True))
    for path, (role, fan_in) in ROLES.items():
        deviation, leaf = FORMULAS[scheme](role, fan_in), params[path].astype(np.float64)
        error = 4.6 / (2 * leaf.size) ** 0.5  # of a normal's measured deviation, relative
        np.testing.assert_allclose(leaf.std(), deviation, rtol=error, err_msg=path)
        assert abs(leaf.mean()) < 4.6 * deviation / leaf.size**0.5, path
        farthest = np.abs(leaf).max() / deviation
        if scheme == "fan_in":  # cut off at two deviations of the normal it is drawn from, 0.8796 of them after it
            assert 1.95 < farthest * 0.8796 <= 2, path
        else:
            assert farthest > 3, path
        if "/block/" in path:
            assert np.abs(np.corrcoef(leaf[0].ravel(), leaf[1].ravel())[0, 1]) < 0.05, path
    for path, leaf in params.items():
        if path not in ROLES and path != "positions/embedding":
            assert (leaf == (0 if path.endswith("bias") else 1)).all(), path
    leaf = params["positions/embedding"]  # as init_std says in every scheme
    np.testing.assert_allclose(leaf.std(), 0.05, rtol=4.6 / (2 * leaf.size) ** 0.5)


def _normalised(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)


@pytest.mark.parametrize("wiring", ["pre", "sandwich", "parallel", "post"])
def test_zero_init_makes_blocks_the_identity(model, wiring):
    """Hidden states are the embedding, normalised at the end, or with post after every branch."""
    options = {"zero_init": True, "residual_scalars": True, "positions": "none", "norm_epsilon": 0.1}
    model = model("gpt2", model__wiring=wiring, **{f"model__{name}": value for name, value in options.items()})

    @jax.jit
    def run():
        params = model.init(jax.random.key(5), *ROWS)
        return params["params"], model.apply(params, *ROWS).hidden

    params, hidden = run()
    expected = np.asarray(params["embed"]["embedding"])[IDS]
    for _ in range(2 * LAYERS if wiring == "post" else 1):
        expected = _normalised(expected)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    for branch in ("attention", "feedforward"):
        assert not np.any(params["decoder"]["block"][branch]["out"]["kernel"])
    assert np.std(params["decoder"]["block"]["feedforward"]["in"]["kernel"]) > 0.04


@pytest.mark.parametrize(
    ("scheme", "deviation"), [("gpt2", 0.05 / (3 * LAYERS + 2 * 5) ** 0.5), ("small", 2 / (LAYERS + 5) / WIDTH**0.5)]
)
def test_an_encoders_layers_are_on_the_way_too(model, scheme, deviation):
    """Two layers of three branches behind five of two."""
    model = model(scheme, model__architecture="encoder_decoder", model__encoder_layers=5)
    params = jax.jit(lambda: initial(model, jax.random.key(5)))()
    for stack, branches in {"encoder": 2, "decoder": 3}.items():
        kernels = [branch["out"]["kernel"] for branch in params[stack]["block"].values() if "out" in branch]
        assert len(kernels) == branches
        for kernel in kernels:
            np.testing.assert_allclose(np.std(kernel), deviation, rtol=4.6 / (2 * kernel.size) ** 0.5)
