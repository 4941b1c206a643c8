"""The whole model: what a token may depend on, cached and packed rows, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.families.catalog import FAMILIES
from lm.model import cache as caches
from lm.model.transformer import Transformer


@pytest.fixture(params=FAMILIES)
def model(request, tiny):
    return Transformer(tiny(model__family=request.param).model)


def _rows(rows, length, seed=0):
    ids = np.random.default_rng(seed).integers(0, 61, (rows, length)).astype(np.int32)
    return ids, np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)


def test_no_token_depends_on_later_ones(model, random_params):
    """The gradient of position t by the embedding of the token at s is zero for s > t, and only there."""
    ids = np.random.default_rng(0).permutation(61)[None, :13]
    positions, segments = np.arange(13)[None], np.ones((1, 13), int)
    direction = np.random.default_rng(1).normal(size=24).astype(np.float32)
    params = random_params(model)

    def outcome(embedding):
        tree = {"params": params | {"embed": {"embedding": embedding}}}
        return model.apply(tree, ids, positions, segments).hidden[0] @ direction

    by_token = jax.jit(jax.jacrev(outcome))(params["embed"]["embedding"])[:, ids[0]]
    depends = np.abs(by_token).max(axis=-1) > 0
    np.testing.assert_array_equal(depends, np.tri(13, dtype=bool))


def test_packed_is_separate(model, random_params):
    ids, _ = _rows(1, 11)
    params = {"params": random_params(model)}
    run = jax.jit(lambda *rows: model.apply(params, *rows).hidden)
    lengths = [4, 5, 2]
    segments = np.repeat([1, 2, 3], lengths)[None]
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    packed = run(ids, positions, segments)[0]
    assert np.abs(run(ids, np.arange(11)[None], np.ones_like(ids))[0, 4:] - packed[4:]).max() > 0.1
    for segment in (1, 2, 3):
        own = np.flatnonzero(segments[0] == segment)
        alone = np.zeros_like(ids)
        alone[0, : len(own)] = ids[0, own]
        hidden = run(alone, np.arange(11)[None], np.ones_like(ids))[0, : len(own)]
        np.testing.assert_allclose(packed[own], hidden, atol=1e-5)


def test_cached_is_full(model, random_params):
    """Prompts of 3 and 7 tokens, padded on the right to 8, then step by step, each row at its own position."""
    ids, positions = _rows(2, 13)
    params = {"params": random_params(model)}
    full = jax.jit(model.apply)(params, ids, positions, np.ones_like(ids)).hidden
    run = jax.jit(lambda ids, positions, cache: model.apply(params, ids, positions, cache=cache))
    lengths = np.array([3, 7])
    padded = np.where(np.arange(8) < lengths[:, None], ids[:, :8], 9)
    out = run(padded, positions[:, :8], caches.empty(model.config, 2, 13))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(out.hidden[row, :length], full[row, :length], atol=1e-5)
    for _ in range(6):
        out = run(ids[[0, 1], lengths][:, None], lengths[:, None], out.cache)
        np.testing.assert_allclose(out.hidden[:, 0], full[np.array([0, 1]), lengths], atol=1e-5)
        lengths = lengths + 1


def test_a_prompt_in_pieces_is_one_prompt(model, random_params):
    ids, positions = _rows(2, 10)
    params = {"params": random_params(model)}
    run = jax.jit(lambda ids, positions, cache: model.apply(params, ids, positions, cache=cache))
    whole = run(ids, positions, caches.empty(model.config, 2, 13))
    cache = caches.empty(model.config, 2, 13)
    for part in (slice(0, 5), slice(5, 10)):
        out = run(ids[:, part], positions[:, part], cache)
        cache = out.cache
        np.testing.assert_allclose(out.hidden, whole.hidden[:, part], atol=1e-5)


def test_tied_head_is_the_embedding(tiny, random_params):
    for is_tied in (True, False):
        model = Transformer(tiny(model__tied=is_tied).model)
        params = random_params(model)
        unembed = jax.jit(model.apply)({"params": params}, *_rows(1, 3), np.ones((1, 3), int)).unembed
        expected = params["embed"]["embedding"].T if is_tied else params["head"]["kernel"]
        assert ("head" in params) == (not is_tied) and unembed.shape == (24, 64)
        np.testing.assert_array_equal(unembed, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes(tiny, random_params, equations, family, dtype):
    model = Transformer(tiny(model__family=family, model__dtype=dtype).model)
    params = random_params(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    apply = lambda params: model.apply({"params": params}, *_rows(2, 5), np.ones((2, 5), int))
    out = jax.eval_shape(apply, params)
    assert out.hidden.dtype == out.unembed.dtype == dtype
    products = [equation for equation, _ in equations(apply, params) if equation.primitive.name == "dot_general"]
    assert products and {str(operand.aval.dtype) for product in products for operand in product.invars} == {dtype}


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
    model = Transformer(tiny().model, constrain=constrain)
    params = random_params(Transformer(tiny().model))
    jax.eval_shape(lambda: model.apply({"params": params}, *_rows(2, 5), np.ones((2, 5), int)))
    assert set(seen) == {("embedding", (64, 24)), ("hidden", (2, 5, 24))} and len(seen) >= 4
