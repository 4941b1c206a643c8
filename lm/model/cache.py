"""Keys and values of the positions read so far: an explicit pytree, in and out of every call."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Cache(NamedTuple):
    """Slot p of a row holds position p. Both `(L, B, S, K, C)`; one layer's part lacks L."""

    key: Any
    value: Any


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
    return Cache(put(layer.key, key_BTKC), put(layer.value, value_BTKC))
