"""The attention layer against its parts, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import cache as caches
from lm.model import masks
from lm.model.attend import einsum
from lm.model.attention import Attention
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
    if section.bias:
        for name, count in heads.items():
            params[name]["bias"] = draw(count, head)
        params["out"]["bias"] = draw(width)
    return params


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_written_out(tiny, slow_attention, family):
    section = tiny(model__family=family, model__head_width=8).model
    params = _params(section)
    hidden = np.random.default_rng(1).normal(size=(2, 5, section.width)).astype(np.float32)
    out, cache = jax.jit(Attention(section, einsum).apply)(
        {"params": params}, hidden, POSITIONS, masks.causal(SEGMENTS)
    )
    assert cache is None
    project = lambda name: (
        np.einsum("btd,dhc->bthc", hidden, params[name]["kernel"])
        + params[name].get("bias", np.zeros((1, 1)))[None, None]
    )
    query, key, value = map(project, ("query", "key", "value"))
    if section.positions == "rotary":
        query, key = (np.asarray(rotate(jnp.asarray(x), POSITIONS, section.rotary_base)) for x in (query, key))
    allowed = np.tril(SEGMENTS[:, :, None] == SEGMENTS[:, None, :])
    mixed = slow_attention(query, key, value, allowed)
    expected = np.einsum("bthc,hcd->btd", mixed, params["out"]["kernel"]) + np.asarray(
        params["out"].get("bias", np.zeros(1))
    )
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_cache_is_filled_and_read(tiny):
    section = tiny(model__family="llama").model
    params = {"params": _params(section)}
    hidden = np.random.default_rng(2).normal(size=(2, 5, section.width)).astype(np.float32)
    positions = np.broadcast_to(np.arange(5), (2, 5))
    layer = caches.Cache(*(leaf[0] for leaf in caches.empty(section, 2, 7)))
    apply = Attention(section, einsum).apply
    full, _ = jax.jit(apply)(params, hidden, positions, masks.causal(np.ones((2, 5), int)))
    step = jax.jit(lambda hidden, here, layer: apply(params, hidden, here, masks.cached(here, 7), cache=layer))
    for t in range(5):
        one, layer = step(hidden[:, t : t + 1], positions[:, t : t + 1], layer)
        np.testing.assert_allclose(one[:, 0], full[:, t], atol=1e-5)
    assert (np.abs(layer.key[:, :5]).max(axis=(2, 3)) > 0).all()
    assert not np.asarray(layer.key[:, 5:]).any()
