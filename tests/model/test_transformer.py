"""The whole model: what a token may depend on, cached and packed rows, dtypes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import trees
from lm.config import schema
from lm.model import cache as caches
from lm.model.transformer import Embed, TokenValues, Transformer

# Combinations in which every option of the decoder is at work that a token's past can see.
VARIANTS = {
    "gpt2": {"family": "gpt2"},
    "llama, a larger base": {"family": "llama", "rotary_scaling": "ntk", "rotary_factor": 3.0},
    "gemma3": {"family": "gemma3", "windows": (4, 0), "rotary_scaling": "linear", "rotary_factor": 3.0},
    "alibi, parallel": {
        "positions": "alibi",
        "wiring": "parallel",
        "activation": "relu_squared",
        "attention_soft_cap": 1.5,
    },
    "relative, sandwich, a pattern and one layer": {
        "positions": "relative",
        "relative_buckets": 6,
        "relative_distance": 9,
        "wiring": "sandwich",
        "qk_norm": True,
        "windows": (3, 0),
    },
    "none, post": {
        "positions": "none",
        "wiring": "post",
        "norm": "rms",
        "value_embeddings": 2,
        "residual_scalars": True,
    },
    "sinusoidal, windows": {
        "positions": "sinusoidal",
        "windows": (4,),
        "activation": "gelu",
        "gated": True,
        "tied": False,
    },
    "experts, yarn": {
        "family": "mixtral",
        "experts": 5,
        "rotary_scaling": "yarn",
        "rotary_factor": 3.0,
        "rotary_original_context": 41,
    },
    "experts with places for all": {"experts": 3, "dispatch": "capacity", "expert_capacity": 1.5},
    "part of a head turned, parallel with two norms": {
        "positions": "rotary",
        "rotary_share": 0.7,
        "rotary_scaling": "llama3",
        "rotary_factor": 4.0,
        "rotary_original_context": 9,
        "windows": (0, 4),
        "wiring": "parallel_norms",
        "activation": "relu",
        "attention_scale": 1.0,
        "attention_bias": False,
        "unit_offset": True,
        "scaled_embedding": True,
    },
}


class Case(NamedTuple):
    """A model, its random parameters, and its two ways of reading 2 rows: whole, and with a cache of 13 slots."""

    model: Transformer
    params: Any
    whole: Callable  # (ids, positions, segments), all (2, 13) → hidden
    cached: Callable  # (ids, positions, cache, segments) → Output


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def case(request, tiny, random_params):
    model = Transformer(tiny(**{f"model__{name}": value for name, value in request.param.items()}).model)
    params = random_params(model)
    whole = jax.jit(lambda *rows: model.apply({"params": params}, *rows).hidden)
    cached = jax.jit(
        lambda ids, positions, cache, segments=None: model.apply({"params": params}, ids, positions, segments, cache)
    )
    return Case(model, params, whole, cached)


def _rows(rows, length, seed=0):
    ids = np.random.default_rng(seed).integers(0, 61, (rows, length)).astype(np.int32)
    return ids, np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)


def test_variants_have_every_choice(tiny):
    """Of every field that chooses how the forward pass computes, and every other option of it but its own value."""
    as_fields = lambda variant: {f"model__{name}": value for name, value in variant.items()}
    sections = [tiny(**as_fields(variant)).model for variant in VARIANTS.values()]
    for name in ("norm", "wiring", "positions", "activation", "rotary_scaling"):
        assert {section[name] for section in sections} == set(schema.FIELDS[f"model.{name}"].rule.choices), name
    for name in (
        "qk_norm",
        "gated",
        "bias",
        "attention_bias",
        "tied",
        "unit_offset",
        "scaled_embedding",
        "rotary_window_base",
        "residual_scalars",
        "value_embeddings",
        "attention_soft_cap",
    ):
        assert {bool(section[name]) for section in sections} == {True, False}, name


def test_a_token_depends_on_what_it_sees(case):
    """The gradient of position t by the embedding of the token at s is zero for s > t, and where the windows of all
    layers together do not reach; and only there.
    """
    model, params, *_ = case
    ids = np.random.default_rng(0).permutation(61)[None, :13]
    positions, segments = np.arange(13)[None], np.ones((1, 13), int)
    direction = np.random.default_rng(1).normal(size=24).astype(np.float32)

    def outcome(embedding):
        tree = {"params": params | {"embed": {"embedding": embedding}}}
        return model.apply(tree, ids, positions, segments).hidden[0] @ direction

    @jax.jit
    def jacobian(embedding):  # row by row, since products of experts have no vmap of their gradient
        return jax.lax.map(lambda unit: jax.vjp(outcome, embedding)[1](unit)[0], jnp.eye(13))

    by_token = jacobian(params["embed"]["embedding"])[:, ids[0]]
    depends = np.abs(by_token).max(axis=-1) > 0
    windows = 3 * model.config.windows
    reach = sum(window - 1 for window in windows[:3]) if windows and all(windows) else 13
    np.testing.assert_array_equal(depends, np.tri(13, dtype=bool) & ~np.tri(13, k=-reach - 1, dtype=bool))
    assert reach == 13 or not depends.all(where=np.tri(13, dtype=bool))


def test_packed_is_separate(case):
    ids, places = _rows(2, 13)
    lengths = [[4, 5, 4], [6, 2, 5]]
    segments = np.array([np.repeat([1, 2, 3], row) for row in lengths])
    positions = np.array([np.concatenate([np.arange(length) for length in row]) for row in lengths])
    packed = case.whole(ids, positions, segments)
    one = np.ones_like(ids)
    assert np.abs(case.whole(ids, places, one) - packed)[:, 6:].max() > 0.1
    for row, segment in np.ndindex(2, 3):
        own = np.flatnonzero(segments[row] == segment + 1)
        alone = np.zeros_like(ids)
        alone[0, : len(own)] = ids[row, own]
        hidden = case.whole(alone, places, one)[0, : len(own)]
        np.testing.assert_allclose(packed[row, own], hidden, atol=1e-5)


@pytest.mark.parametrize("ahead", [1, None])
def test_cached_is_whole(case, ahead):
    """Prompts of 3 and 7 tokens, padded on the right to 8, then step by step, each row at its own position."""
    ids, positions = _rows(2, 13)
    whole = case.whole(ids, positions, np.ones_like(ids))
    lengths = np.array([3, 7])
    is_text = np.arange(8) < lengths[:, None]
    padded = np.where(is_text, ids[:, :8], 9)
    cache = caches.empty(case.model.config, 2, 13, ahead)
    out = case.cached(padded, positions[:, :8], cache, is_text.astype(np.int32))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(out.hidden[row, :length], whole[row, :length], atol=1e-5)
    for _ in range(6):
        out = case.cached(ids[[0, 1], lengths][:, None], lengths[:, None], out.cache)
        np.testing.assert_allclose(out.hidden[:, 0], whole[np.array([0, 1]), lengths], atol=1e-5)
        lengths = lengths + 1


def test_a_prompt_in_pieces_is_one_prompt(case):
    """Of 8 and 5 tokens; what pads the second to 8 lies beyond the cache's end."""
    ids, positions = _rows(2, 13)
    whole = case.whole(ids, positions, np.ones_like(ids))
    out = case.cached(ids[:, :8], positions[:, :8], caches.empty(case.model.config, 2, 13))
    np.testing.assert_allclose(out.hidden, whole[:, :8], atol=1e-5)
    out = case.cached(np.pad(ids[:, 8:], ((0, 0), (0, 3))), positions[:, :8] + 8, out.cache)
    np.testing.assert_allclose(out.hidden[:, :5], whole[:, 8:], atol=1e-5)


def test_token_values_look_up(tiny):
    section = tiny(model__value_embeddings=3).model
    ids = np.random.default_rng(0).integers(0, 61, (2, 5))
    tables = np.random.default_rng(1).normal(size=(3, 64, 12)).astype(np.float32)
    out = TokenValues(section, lambda array, name: array).apply({"params": {"embedding": jnp.asarray(tables)}}, ids)
    for table, row, t, head in np.ndindex(3, 2, 5, 2):
        expected = tables[table, ids[row, t], 6 * head : 6 * head + 6]
        np.testing.assert_array_equal(out[table, row, t, head], expected)


def test_layers_take_value_tables_in_turn(tiny, random_params):
    """With one layer's scale of values by token alone not zero, only that layer's table has a gradient."""
    model = Transformer(tiny(model__value_embeddings=2).model)
    params = random_params(model)
    rows = *_rows(1, 5), np.ones((1, 5), int)

    @jax.jit
    def by_table(layer):
        block = params["decoder"]["block"]
        scale = block["attention"]["value_scale"] * (jnp.arange(3) == layer)[:, None]
        block = block | {"attention": block["attention"] | {"value_scale": scale}}
        tree = params | {"decoder": params["decoder"] | {"block": block}}
        outcome = lambda values: model.apply({"params": tree | {"values": values}}, *rows).hidden[0, -1, 0]
        return jnp.abs(jax.grad(outcome)(params["values"])["embedding"]).max(axis=(1, 2)) > 0

    np.testing.assert_array_equal([by_table(layer) for layer in range(3)], [[1, 0], [0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embedding_is_scaled_by_the_root_of_the_width_in_dtype(tiny, dtype):
    section = tiny(model__scaled_embedding=True, model__dtype=dtype).model
    table = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 61, (2, 5))
    embed = Embed(section, lambda array, name: array)
    params = {"params": {"embedding": jnp.asarray(table)}}
    rounded = lambda x: np.asarray(jnp.asarray(x, dtype), np.float64)
    expected = rounded(rounded(table)[ids] * rounded(24**0.5))
    np.testing.assert_allclose(np.asarray(embed.apply(params, ids), np.float64), expected, rtol=1e-6)
    np.testing.assert_array_equal(embed.apply(params, method="table"), jnp.asarray(table, dtype))


def test_tied_head_is_the_embedding(tiny, random_params):
    for is_tied in (True, False):
        model = Transformer(tiny(model__tied=is_tied).model)
        params = random_params(model)
        unembed = jax.jit(model.apply)({"params": params}, *_rows(1, 3), np.ones((1, 3), int)).unembed
        expected = params["embed"]["embedding"].T if is_tied else params["head"]["kernel"]
        assert ("head" in params) == (not is_tied) and unembed.shape == (24, 64)
        np.testing.assert_array_equal(unembed, expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes(tiny, random_params, equations, variant, dtype):
    options = {f"model__{name}": value for name, value in VARIANTS[variant].items()}
    model = Transformer(tiny(**options, model__dtype=dtype).model)
    params = random_params(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    apply = lambda params: model.apply({"params": params}, *_rows(2, 5), np.ones((2, 5), int))
    out = jax.eval_shape(apply, params)
    assert out.hidden.dtype == out.unembed.dtype == dtype
    is_product = lambda equation: equation.primitive.name in ("dot_general", "ragged_dot_general")
    is_router = lambda equation: equation.params["precision"] is not None  # float32 whatever the dtype
    products = [equation for equation, _ in equations(apply, params) if is_product(equation)]
    operands = [operand for product in products if not is_router(product) for operand in product.invars[:2]]
    assert operands and {str(operand.aval.dtype) for operand in operands} == {dtype}
    routers = [operand for product in products if is_router(product) for operand in product.invars]
    assert bool(routers) == (model.config.experts > 0)
    assert {str(operand.aval.dtype) for operand in routers} <= {"float32"}


def test_bfloat16_gradients_are_close_to_float32(tiny, random_params):
    """Three ids, each read hundreds of times: what sums over all places must not be summed in bfloat16."""
    ids = np.random.default_rng(0).integers(0, 3, (32, 32)).astype(np.int32)
    positions, segments = np.broadcast_to(np.arange(32), ids.shape), np.ones_like(ids)
    options = {"model.value_embeddings": 2, "model.residual_scalars": True, "model.context": 32, "model.layers": 2}
    gradients = []
    for dtype in ("float32", "bfloat16"):
        model = Transformer(tiny(model__dtype=dtype, **options).model)
        loss = lambda params, model=model: jnp.mean(
            jnp.square(model.apply({"params": params}, ids, positions, segments).hidden.astype("float32") - 1.0)
        )
        gradients.append(jax.jit(jax.grad(loss))(random_params(model)))
    for path, exact, rounded in zip(trees.paths(gradients[0]), *map(jax.tree.leaves, gradients), strict=True):
        if "block/attention/key/bias" not in path:  # zero but for rounding
            error = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
            assert error < 0.05, (path, error)


def test_bfloat16_is_close_to_float32(tiny, random_params):
    outs = []
    for dtype in ("float32", "bfloat16"):
        model = Transformer(tiny(model__dtype=dtype).model)
        out = jax.jit(model.apply)({"params": random_params(model)}, *_rows(2, 13), np.ones((2, 13), int))
        outs.append(np.asarray(out.hidden, np.float32))
    error = np.abs(outs[0] - outs[1])
    assert 0 < error.mean() < 0.03 * np.abs(outs[0]).mean()


def test_activations_are_offered_to_constrain(tiny, random_params):
    seen = []
    constrain = lambda array, name: (seen.append((name, array.shape)), array)[1]
    section = tiny(model__value_embeddings=2).model
    params = random_params(Transformer(section))
    model = Transformer(section, constrain=constrain)
    jax.eval_shape(lambda: model.apply({"params": params}, *_rows(2, 5), np.ones((2, 5), int)))
    assert set(seen) == {("embedding", (64, 24)), ("embedding", (2, 64, 12)), ("hidden", (2, 5, 24))} and len(seen) >= 5
