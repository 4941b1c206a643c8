"""Attention's core against one query at a time, and its gradient against the plain formula's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import attend, masks

SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3], [1, 2, 2, 2, 2, 0, 0]])
ALLOWED = np.tril(SEGMENTS[:, :, None] == SEGMENTS[:, None, :])


def _draw(length, slots, heads, kv_heads, seed=0):
    generator = np.random.default_rng(seed)
    shapes = (2, length, heads, 5), (2, slots, kv_heads, 5), (2, slots, kv_heads, 5)
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_packed_rows(slow_attention, kv_heads):
    query, key, value = _draw(7, 7, 6, kv_heads)
    out = attend.einsum(query, key, value, masks.causal(SEGMENTS), "float32")
    np.testing.assert_allclose(out, slow_attention(*map(np.asarray, (query, key, value)), ALLOWED), atol=1e-6)


def test_cached_rows(slow_attention):
    query, key, value = _draw(3, 11, 6, 2)
    positions = np.array([[0, 1, 2], [6, 7, 8]])
    out = attend.einsum(query, key, value, masks.cached(positions, 11), "float32")
    allowed = np.arange(11)[None, None] <= positions[:, :, None]
    np.testing.assert_allclose(out, slow_attention(*map(np.asarray, (query, key, value)), allowed), atol=1e-6)


def test_large_scores_do_not_overflow():
    query, key, value = _draw(7, 7, 6, 2)
    out = attend.einsum(1e4 * query, key, value, masks.causal(SEGMENTS), "float32")
    assert np.isfinite(out).all() and np.abs(out).max() <= np.abs(value).max() + 1e-5


def test_gradient_is_the_plain_formulas():
    inputs = _draw(7, 7, 6, 2)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 6, 5)), jnp.float32)

    def plain(query, key, value):
        key, value = jnp.repeat(key, 3, axis=2), jnp.repeat(value, 3, axis=2)
        scores = jnp.where(ALLOWED[:, None], jnp.einsum("bthc,bshc->bhts", query, key) / 5**0.5, -jnp.inf)
        return jnp.sum(jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), value) * direction)

    ours = lambda *inputs: jnp.sum(attend.einsum(*inputs, masks.causal(SEGMENTS), "float32") * direction)
    for one, other in zip(*(jax.jit(jax.grad(loss, (0, 1, 2)))(*inputs) for loss in (ours, plain)), strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("dtype", "short"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_softmax_dtype_is_honoured(dtype, short):
    inputs = [x.astype(jnp.bfloat16) for x in _draw(7, 7, 6, 2)]
    attend_in = lambda *inputs: attend.einsum(*inputs, masks.causal(SEGMENTS), dtype)
    exponentials = [line for line in str(jax.make_jaxpr(attend_in)(*inputs)).splitlines() if " = exp " in line]
    assert exponentials and all(f":{short}[" in line for line in exponentials)
    out = attend_in(*inputs)
    assert out.dtype == jnp.bfloat16
    exact = attend.einsum(*(x.astype(jnp.float32) for x in inputs), masks.causal(SEGMENTS), "float32")
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)
