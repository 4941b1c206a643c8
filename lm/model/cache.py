"""Keys and values of the positions read so far: an explicit pytree, in and out of every call."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Cache(NamedTuple):
    """What a decoder has read. One layer's part lacks L.

    key, value: `(L, B, S, K, C)`, slot p of a row holds position p.
    memory_key, memory_value: of what an encoder read, likewise; None until a pass is given it.
    memory_segments: int32 `(L, B, S)`, 1 where it is text.
    """

    key: Any
    value: Any
    memory_key: Any = None
    memory_value: Any = None
    memory_segments: Any = None


def empty(config, rows: int, length: int) -> Cache:
    """Return a cache for `rows` sequences of at most `length` positions.

    Args:
      config: config.model, resolved.
    """
    shape = (config.layers, rows, length, config.kv_heads, config.head_width)
    return Cache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))


def write(layer: Cache, key_BTKC, value_BTKC, positions_BT) -> Cache:
    """Return one layer's cache with keys and values put at their positions; those beyond its end are dropped."""
    rows = jnp.arange(key_BTKC.shape[0])[:, None]
    put = lambda slots, new: slots.at[rows, positions_BT].set(new.astype(slots.dtype), mode="drop")
    return layer._replace(key=put(layer.key, key_BTKC), value=put(layer.value, value_BTKC))
