"""A block against its wiring's formula, and where what is random falls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import schema
from lm.model import masks
from lm.model.attend import einsum
from lm.model.attention import Attention
from lm.model.block import WIRINGS, Block, Context
from lm.model.feedforward import FeedForward
from lm.model.norms import NORMS
from lm.model.transformer import Transformer


def _pre(x, attention, feedforward, norm):
    x = x + attention(norm("attention_norm", x))
    return x + feedforward(norm("feedforward_norm", x))


def _post(x, attention, feedforward, norm):
    x = norm("attention_norm", x + attention(x))
    return norm("feedforward_norm", x + feedforward(x))


def _sandwich(x, attention, feedforward, norm):
    x = x + norm("attention_out_norm", attention(norm("attention_norm", x)))
    return x + norm("feedforward_out_norm", feedforward(norm("feedforward_norm", x)))


def _parallel(x, attention, feedforward, norm):
    return x + attention(norm("norm", x)) + feedforward(norm("norm", x))


def _parallel_norms(x, attention, feedforward, norm):
    return x + attention(norm("attention_norm", x)) + feedforward(norm("feedforward_norm", x))


FORMULAS = {
    "pre": _pre,
    "post": _post,
    "sandwich": _sandwich,
    "parallel": _parallel,
    "parallel_norms": _parallel_norms,
}


def test_wirings_are_the_schemas():
    assert set(WIRINGS) == set(schema.FIELDS["model.wiring"].rule.choices)


@pytest.mark.parametrize(
    ("wiring", "options"),
    [
        *((name, {}) for name in WIRINGS),
        ("pre", {"model__residual_scalars": True, "model__value_embeddings": 2}),
        ("post", {"model__residual_scalars": True}),
    ],
)
def test_wiring(tiny, random_params, wiring, options):
    """Layer 2 of 3, whose values come from table 0 of 2; scalars mix in what was embedded before all else."""
    section = tiny(model__wiring=wiring, **options).model
    params = random_params(Transformer(section))["decoder"]
    assert ("norm" in params) == (wiring != "post")
    params = jax.tree.map(lambda leaf: leaf[2], params["block"])
    generator = np.random.default_rng(1)
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)
    x, embedded, tables = draw(2, 7, 24), draw(2, 7, 24), draw(2, 2, 7, 2, 6)
    positions = np.broadcast_to(np.arange(7), (2, 7))
    mask = masks.packed(np.ones((2, 7), int))
    context = Context(positions, mask, None, embedded, tables if section.value_embeddings else None, False, 3)
    block = Block(section, einsum, lambda array, name: array)
    out, *others = jax.jit(lambda params: block.apply({"params": params}, x, None, 2, 3, context))(params)
    assert others == [None, None]

    used = set()

    def norm(name, x):
        used.add(name)
        return np.asarray(NORMS[section.norm](section).apply({"params": params[name]}, x))

    def attention(x):
        values = tables[0] if section.value_embeddings else None
        layer = Attention(section, einsum)
        return np.asarray(layer.apply({"params": params["attention"]}, x, positions, mask, None, None, values, 3)[0])

    feedforward = lambda x: np.asarray(FeedForward(section).apply({"params": params["feedforward"]}, x))
    scalars = {"residual_scale", "embedded_scale"} if section.residual_scalars else set()
    if scalars:
        x = np.asarray(params["residual_scale"]) * x + np.asarray(params["embedded_scale"]) * embedded
    np.testing.assert_allclose(out, FORMULAS[wiring](x, attention, feedforward, norm), atol=2e-5)
    assert set(params) == {"attention", "feedforward"} | used | scalars


@pytest.fixture(scope="module")
def counting(tiny, random_params):
    """Return a function: (overrides, unit, key, ids' shape) → the factor at each place of randomness, `(6, B, T, D)`.

    Places are: positions, embedding, then attention and feed-forward of two layers. All kernels are zero, and the
    biases of the branches, positions and embedding are powers of a large number, so that each place writes its own
    digit of the result; a large ε makes the last norm the identity up to a factor. Factors are multiples of `unit`.
    """
    section = lambda overrides: (
        tiny(model__norm="rms", model__bias=True, model__norm_epsilon=1e20, model__layers=2, **dict(overrides)).model
    )
    base = 8.0  # factors are below 8 units
    places = 6
    params = jax.tree.map(jnp.zeros_like, random_params(Transformer(section(()))))
    layers = base ** (2 + 2 * jnp.arange(2.0))[:, None] * jnp.ones((1, 24))
    params["positions"]["embedding"] += 1.0
    params["embed"]["embedding"] += base
    params["decoder"]["block"]["attention"]["out"]["bias"] = layers
    params["decoder"]["block"]["feedforward"]["out"]["bias"] = base * layers
    params["decoder"]["norm"]["scale"] += 1e10

    @functools.partial(jax.jit, static_argnums=0)
    def run(overrides, ids, rngs):
        model = Transformer(section(overrides))
        return model.apply({"params": params}, ids, ids, ids, train=rngs is not None, rngs=rngs)

    def factors(overrides, unit, key, shape=(8, 13)):
        rngs = None if key is None else {"dropout": jax.random.key(key)}
        out = run(tuple(overrides.items()), jnp.zeros(shape, jnp.int32), rngs)
        digits = np.rint(np.asarray(out.hidden, np.float64) / unit).astype(int)
        return np.stack([digits // 8**place % 8 for place in range(places)]) * unit

    return factors


DROPOUT = {"model__dropout": 0.25}, 4 / 3
DEPTH = {"model__stochastic_depth": 0.5}, 1 / 3  # keeps 3/4 in the first layer and 1/2 in the second
TOKENS = {"model__token_dropout": 0.25}, 1 / 3


def test_without_key_nothing_is_dropped(counting):
    overrides = DROPOUT[0] | DEPTH[0] | TOKENS[0]
    assert (counting(overrides, 1.0, None) == 1).all()


def _assert_independent(is_kept, deviations=4.6):
    """Every place against every other: P(both) is the product, within sampling error."""
    rates = is_kept.reshape(len(is_kept), -1).mean(axis=1)
    allowed = deviations * (0.25 / is_kept[0].size) ** 0.5
    for one in range(len(is_kept)):
        for other in range(one):
            assert abs((is_kept[one] & is_kept[other]).mean() - rates[one] * rates[other]) < allowed, (one, other)


def test_dropout_rate_scale_and_independence(counting):
    factors = counting(*DROPOUT, 3)
    assert set(np.unique(factors)) == {0.0, 4 / 3}
    np.testing.assert_array_equal(factors[0], factors[1])  # positions are added before
    is_kept = factors[1:] > 0
    assert np.abs(is_kept.mean(axis=(1, 2, 3)) - 0.75).max() < 0.04  # 4.6 standard deviations of 2496 draws
    _assert_independent(is_kept)


def test_stochastic_depth_leaves_out_rows_more_often_in_later_layers(counting):
    """Whole rows; what is kept is scaled so that the mean stays."""
    factors = counting(*DEPTH, 3, (1500, 2))
    assert (factors[:2] == 1).all() and (factors == factors[:, :, :1, :1]).all()
    rows = factors[2:, :, 0, 0]
    for place, keep in enumerate((0.75, 0.75, 0.5, 0.5)):
        np.testing.assert_allclose(np.unique(rows[place]), [0, 1 / keep])
        share = (rows[place] > 0).mean()
        assert abs(share - keep) < 4.6 * (keep * (1 - keep) / 1500) ** 0.5
        assert abs(rows[place].mean() - 1) < 4.6 * ((1 / keep - 1) / 1500) ** 0.5
    _assert_independent(rows > 0)


def test_token_dropout_zeroes_whole_tokens_before_positions_are_added(counting):
    factors = counting(*TOKENS, 3, (60, 13))
    assert (np.delete(factors, 1, axis=0) == 1).all() and (factors == factors[..., :1]).all()
    tokens = factors[1, :, :, 0]
    np.testing.assert_allclose(np.unique(tokens), [0, 4 / 3])
    assert abs((tokens > 0).mean() - 0.75) < 4.6 * (0.75 * 0.25 / 780) ** 0.5
    assert len(np.unique(tokens, axis=0)) > 40 and len(np.unique(tokens, axis=1)[0]) == 13  # rows and places differ


@pytest.mark.parametrize("case", [DROPOUT, DEPTH, TOKENS], ids=["dropout", "depth", "tokens"])
def test_keys_differ(counting, case):
    shape = (200, 2) if case is DEPTH else (8, 13)
    one, same, other = (counting(*case, key, shape) for key in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    is_random = (one != 1).any(axis=(1, 2, 3))
    assert is_random.any() and ((one != other).any(axis=(1, 2, 3)) == is_random).all()


@pytest.mark.parametrize("wiring", ["pre", "sandwich", "parallel", "parallel_norms"])
def test_what_stochastic_depth_keeps_is_scaled_behind_every_norm(tiny, random_params, wiring):
    """Rows alike, a feed-forward of zeros: attention adds nothing, or 1 / keep times what it adds in evaluation."""
    section = tiny(model__family="llama", model__wiring=wiring, model__layers=1, model__stochastic_depth=0.75).model
    model = Transformer(section)
    params = random_params(model)
    params["decoder"]["block"]["feedforward"]["out"]["kernel"] *= 0
    params["decoder"]["norm"]["scale"] = jnp.ones(24)
    layer = jax.tree.map(lambda leaf: leaf[0], params["decoder"]["block"])
    hidden = jnp.broadcast_to(jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 24)), jnp.float32), (200, 5, 24))
    places = jnp.broadcast_to(jnp.arange(5), (200, 5))

    def added(train):
        context = Context(places, masks.packed(jnp.ones_like(places)), None, hidden, None, train, section.layers)
        block = Block(section, einsum, lambda array, name: array)
        out, *_ = block.apply({"params": layer}, hidden, None, 0, 0, context, rngs={"dropout": jax.random.key(1)})
        return np.asarray(out - hidden)

    whole, training = added(False)[0], added(True)
    is_kept = np.abs(training).max(axis=(1, 2)) > 0
    assert 0.1 < is_kept.mean() < 0.4 and np.abs(whole).max() > 0.1
    np.testing.assert_allclose(training[is_kept], np.broadcast_to(4 * whole, training[is_kept].shape), atol=1e-5)
