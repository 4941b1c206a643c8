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


DENSE = pytest.mark.parametrize("dense", [attend.einsum, attend.xla])


@DENSE
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_packed_rows(slow_attention, dense, kv_heads):
    query, key, value = _draw(7, 7, 6, kv_heads)
    out = dense(query, key, value, masks.packed(SEGMENTS), "float32")
    np.testing.assert_allclose(out, slow_attention(*map(np.asarray, (query, key, value)), ALLOWED), atol=1e-6)


@DENSE
def test_cached_rows(slow_attention, dense):
    query, key, value = _draw(3, 11, 6, 2)
    positions = np.array([[0, 1, 2], [6, 7, 8]])
    out = dense(query, key, value, masks.cached(positions, 11), "float32")
    allowed = np.arange(11)[None, None] <= positions[:, :, None]
    np.testing.assert_allclose(out, slow_attention(*map(np.asarray, (query, key, value)), allowed), atol=1e-6)


def _table(distance_BTS):
    """Return a bias that tells heads and distances apart, `(B or 1, H, T, S)`."""
    heads = jnp.arange(6.0)[None, :, None, None]
    return jnp.cos(0.7 * heads + 1) * distance_BTS[:, None].astype(jnp.float32) / 3


OPTIONS = {
    "bias": {"bias": _table},
    "soft cap": {"soft_cap": 0.8},
    "scale": {"scale": 1.0},
    "window": {"window": 3},
    "all": {"bias": _table, "soft_cap": 0.8, "scale": 0.7, "window": 2},
    "all but a soft cap": {"bias": _table, "scale": 0.7, "window": 2},
}
TAKEN = [(attend.einsum, name) for name in OPTIONS] + [
    (attend.xla, name) for name, options in OPTIONS.items() if "soft_cap" not in options
]


def _expected(slow_attention, inputs, places, allowed, bias=None, soft_cap=None, scale=None, window=None):
    """Return slow_attention's answer; `places` are those of queries `(B or 1, T)`, keys stand at 0, 1, 2, …"""
    distance = places[:, :, None] - np.arange(allowed.shape[2])[None, None]
    if window is not None:
        allowed = allowed & (distance < window)
    table = None if bias is None else bias(distance)
    return slow_attention(*map(np.asarray, inputs), allowed, table, soft_cap, scale)


@pytest.mark.parametrize(("dense", "name"), TAKEN)
def test_options(slow_attention, dense, name):
    """Packed and cached rows, grouped heads."""
    options = OPTIONS[name]
    extra = {name: value for name, value in options.items() if name != "window"}
    window = options.get("window")
    inputs = _draw(7, 7, 6, 2)
    out = dense(*inputs, masks.packed(SEGMENTS)._replace(window=window), "float32", **extra)
    plain = dense(*inputs, masks.packed(SEGMENTS), "float32")
    assert np.abs(out - plain).max() > 0.05
    expected = _expected(slow_attention, inputs, np.arange(7)[None], ALLOWED, **options)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    inputs, positions = _draw(3, 11, 6, 2), np.array([[0, 1, 2], [6, 7, 8]])
    out = dense(*inputs, masks.cached(positions, 11)._replace(window=window), "float32", **extra)
    allowed = np.arange(11)[None, None] <= positions[:, :, None]
    np.testing.assert_allclose(out, _expected(slow_attention, inputs, positions, allowed, **options), atol=2e-6)


def test_large_scores_do_not_overflow():
    query, key, value = _draw(7, 7, 6, 2)
    out = attend.einsum(1e4 * query, key, value, masks.packed(SEGMENTS), "float32")
    assert np.isfinite(out).all() and np.abs(out).max() <= np.abs(value).max() + 1e-5


@pytest.mark.parametrize(
    ("dense", "name"), [(attend.einsum, None), (attend.einsum, "all"), (attend.xla, "all but a soft cap")]
)
def test_gradient_is_the_plain_formulas(dense, name):
    options = OPTIONS[name] if name else {}
    inputs = _draw(7, 7, 6, 2)
    cap, bias, window = options.get("soft_cap"), options.get("bias"), options.get("window")
    scale = options.get("scale", 5**-0.5)
    distance = np.arange(7)[:, None] - np.arange(7)[None]
    allowed = ALLOWED if window is None else ALLOWED & (distance < window)[None]
    direction = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 6, 5)), jnp.float32)

    def plain(query, key, value):
        key, value = jnp.repeat(key, 3, axis=2), jnp.repeat(value, 3, axis=2)
        scores = jnp.einsum("bthc,bshc->bhts", query, key) * scale
        scores = scores if cap is None else cap * jnp.tanh(scores / cap)
        scores = scores if bias is None else scores + bias(distance[None])
        scores = jnp.where(allowed[:, None], scores, -jnp.inf)
        return jnp.sum(jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), value) * direction)

    mask = masks.packed(SEGMENTS)._replace(window=window)
    extra = {name: value for name, value in options.items() if name != "window"}
    ours = lambda *inputs: jnp.sum(dense(*inputs, mask, "float32", **extra) * direction)
    for one, other in zip(*(jax.jit(jax.grad(loss, (0, 1, 2)))(*inputs) for loss in (ours, plain)), strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("dtype", "short"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_softmax_dtype_is_honoured(dtype, short):
    inputs = [x.astype(jnp.bfloat16) for x in _draw(7, 7, 6, 2)]
    attend_in = lambda *inputs: attend.einsum(*inputs, masks.packed(SEGMENTS), dtype)
    exponentials = [line for line in str(jax.make_jaxpr(attend_in)(*inputs)).splitlines() if " = exp " in line]
    assert exponentials and all(f":{short}[" in line for line in exponentials)
    out = attend_in(*inputs)
    assert out.dtype == jnp.bfloat16
    exact = attend.einsum(*(x.astype(jnp.float32) for x in inputs), masks.packed(SEGMENTS), "float32")
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)
