"""The attention layer against its parts, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import cache as caches
from lm.model import masks
from lm.model.attend import einsum
from lm.model.attention import Attention, CrossAttention
from lm.model.positions import rotate

POSITIONS = np.array([[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]])
SEGMENTS = np.array([[1, 1, 1, 1, 1], [1, 1, 2, 2, 2]])


def _params(section, seed=0):
    generator = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(0.5 * generator.normal(size=shape), jnp.float32)
    width, head = section.width, section.head_width
    heads = {"query": section.heads, "key": section.kv_heads, "value": section.kv_heads}
    params = {name: {"kernel": draw(width, count, head)} for name, count in heads.items()}
    params["out"] = {"kernel": draw(section.heads, head, width)}
    if section.attention_bias:
        for name, count in heads.items():
            params[name]["bias"] = draw(count, head)
    if section.bias:
        params["out"]["bias"] = draw(width)
    if section.qk_norm:
        for name in ("query_norm", "key_norm"):
            params[name] = {"scale": 1 + draw(head)}
            if section.norm == "layer" and section.bias:
                params[name]["bias"] = draw(head)
    if section.value_embeddings:
        params["value_scale"] = 1 + draw(section.kv_heads)
    return params


def _normalised(x, section, params):
    """Return x over its last axis normalised, in NumPy; `params` are the norm's."""
    x = np.asarray(x)
    if section.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + section.norm_epsilon)
    return x * (section.unit_offset + np.asarray(params["scale"])) + np.asarray(params.get("bias", 0.0))


CASES = {
    "gpt2": {"model__family": "gpt2"},
    "llama": {"model__family": "llama"},
    "layer norm of heads, soft cap, bias of scores": {
        "model__family": "gpt2",
        "model__qk_norm": True,
        "model__norm_epsilon": 0.1,
        "model__positions": "alibi",
        "model__attention_soft_cap": 1.5,
    },
    "RMS norm of heads, values by token": {
        "model__family": "llama",
        "model__qk_norm": True,
        "model__value_embeddings": 1,
    },
    "biases of queries, keys and values alone, part of a head turned": {
        "model__family": "qwen2",
        "model__rotary_base": 10000.0,
        "model__rotary_share": 0.5,
    },
    "a scale of scores, a scale of norms from 1 on": {
        "model__family": "llama",
        "model__qk_norm": True,
        "model__unit_offset": True,
        "model__attention_scale": 0.9,
    },
    "biases of the branch's output alone": {"model__family": "gpt2", "model__attention_bias": False},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_written_out(tiny, slow_attention, case):
    """Norms of queries and keys come before they are turned; what tokens add to values is scaled per head."""
    section = tiny(**case, model__head_width=8).model
    params = _params(section)
    slopes = np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256], np.float32)[None, :, None, None]
    bias = (lambda distance: -slopes * distance[:, None]) if section.positions == "alibi" else None
    extra = None
    if section.value_embeddings:
        extra = np.random.default_rng(2).normal(size=(2, 5, section.kv_heads, 8)).astype(np.float32)
    hidden = np.random.default_rng(1).normal(size=(2, 5, section.width)).astype(np.float32)
    mask = masks.packed(SEGMENTS)
    apply = jax.jit(lambda *arguments: Attention(section, einsum).apply(*arguments, bias=bias, token_values_BTKC=extra))
    out, cache = apply({"params": params}, hidden, POSITIONS, mask)
    assert cache is None
    project = lambda name: (
        np.einsum("btd,dhc->bthc", hidden, params[name]["kernel"])
        + params[name].get("bias", np.zeros((1, 1)))[None, None]
    )
    query, key, value = map(project, ("query", "key", "value"))
    if section.qk_norm:
        query = _normalised(query, section, params["query_norm"])
        key = _normalised(key, section, params["key_norm"])
    if extra is not None:
        value = value + np.asarray(params["value_scale"])[:, None] * extra
    if section.positions == "rotary":
        half = int(8 * section.rotary_share) // 2
        rates = 10000.0 ** (-np.arange(half) / half)
        query, key = (np.asarray(rotate(jnp.asarray(x), POSITIONS, rates)) for x in (query, key))
    allowed = np.tril(SEGMENTS[:, :, None] == SEGMENTS[:, None, :])
    distance = np.arange(5)[:, None] - np.arange(5)[None]
    table = None if bias is None else bias(distance[None])
    cap, scale = section.attention_soft_cap or None, case.get("model__attention_scale")
    mixed = slow_attention(query, key, value, allowed, table, cap, scale)
    expected = np.einsum("bthc,hcd->btd", mixed, params["out"]["kernel"]) + np.asarray(
        params["out"].get("bias", np.zeros(1))
    )
    np.testing.assert_allclose(out, expected, atol=5e-5)


def test_cache_is_filled_and_read(tiny):
    section = tiny(model__family="llama").model
    params = {"params": _params(section)}
    hidden = np.random.default_rng(2).normal(size=(2, 5, section.width)).astype(np.float32)
    positions = np.broadcast_to(np.arange(5), (2, 5))
    layer = caches.empty(section, 2, 7)[0]
    apply = Attention(section, einsum).apply
    full, _ = jax.jit(apply)(params, hidden, positions, masks.packed(np.ones((2, 5), int)))
    step = jax.jit(lambda hidden, here, layer: apply(params, hidden, here, None, cache=layer))
    for t in range(5):
        one, layer = step(hidden[:, t : t + 1], positions[:, t : t + 1], layer)
        np.testing.assert_allclose(one[:, 0], full[:, t], atol=1e-5)
    assert (np.abs(layer.key[:, :, :5]).max(axis=(1, 3)) > 0).all()
    assert not np.asarray(layer.key[:, :, 5:]).any()


CROSS = {
    "gpt2": {"model__family": "gpt2", "model__attention_scale": 0.7},
    "llama": {"model__family": "llama", "model__attention_soft_cap": 1.5},
}


@pytest.mark.parametrize("case", CROSS.values(), ids=CROSS)
def test_cross_attention_written_out(tiny, slow_attention, case):
    """Queries of two records look at an encoder's seven places, of which the last hold neither; then from a cache."""
    section = tiny(**case, model__head_width=8).model
    params = _params(section)
    generator = np.random.default_rng(3)
    hidden = generator.normal(size=(2, 5, section.width)).astype(np.float32)
    memory = generator.normal(size=(2, 7, section.width)).astype(np.float32)
    read = np.array([[1, 1, 1, 1, 0, 0, 0], [2, 2, 1, 1, 1, 2, 0]])
    apply = jax.jit(
        lambda *arguments, **more: CrossAttention(section, einsum).apply({"params": params}, *arguments, **more)
    )
    out, cache = apply(hidden, (memory, read), SEGMENTS)
    assert cache is None

    def project(x, name):
        bias = np.asarray(params[name].get("bias", np.zeros((1, 1))))
        return np.einsum("btd,dhc->bthc", x, params[name]["kernel"]) + bias

    query, key, value = project(hidden, "query"), project(memory, "key"), project(memory, "value")
    query = query * section.attention_scale * 8**0.5  # slow_attention divides by √8
    allowed = SEGMENTS[:, :, None] == read[:, None, :]
    mixed = slow_attention(query, key, value, allowed, None, section.attention_soft_cap or None)
    expected = np.einsum("bthc,hcd->btd", mixed, params["out"]["kernel"])
    expected = expected + np.asarray(params["out"].get("bias", np.zeros(1)))
    np.testing.assert_allclose(out, expected, atol=5e-5)

    one = (read == 1).astype(np.int32)
    layer = caches.empty(section, 2, 7)[0]
    first, layer = apply(hidden[:, :2], (memory, one), None, cache=layer)
    second, again = apply(hidden[:, 2:3], None, None, cache=layer)
    whole, _ = apply(hidden, (memory, one), np.ones_like(SEGMENTS))
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole[:, :3], atol=1e-5)
    np.testing.assert_array_equal(again.memory_key, layer.memory_key)
