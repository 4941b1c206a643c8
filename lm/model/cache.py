"""Keys and values of the positions read so far: an explicit pytree, in and out of every call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Cache(NamedTuple):
    """What one layer of a decoder has read; a model's is a tuple of its layers'.

    key, value: `(B, K, S, C)`, slot p mod S of a row holds position p.
    memory_key, memory_value: of what an encoder read, `(B, S, K, C)`; None until a pass is given it.
    memory_segments: int32 `(B, S)`, 1 where it is text.
    sinks: int32 `(B,)`, how many of a text's first tokens stay in a cache that rolls (rolling.py), or None.
    """

    key: Any
    value: Any
    memory_key: Any = None
    memory_value: Any = None
    memory_segments: Any = None
    sinks: Any = None

    @property
    def slots(self) -> int:
        """S."""
        return self.key.shape[2]


def empty(config, rows: int, length: int, ahead: int | None = None, sinks=None) -> tuple[Cache, ...]:
    """Return the caches of all layers for `rows` sequences of at most `length` positions.

    Args:
      config: config.model, resolved.
      ahead: most tokens that a pass adds to what was read; a layer with a window then keeps no more slots than that
        takes. None: as many as it likes.
      sinks: of caches that roll, which then have `length` slots in every layer; None: they do not.
    """
    windows = [0] * config.layers
    if config.windows and ahead is not None and sinks is None:
        windows = [config.windows[layer % len(config.windows)] for layer in range(config.layers)]
    slots = [min(length, window + ahead - 1) if window else length for window in windows]
    zeros = lambda count: jnp.zeros((rows, config.kv_heads, count, config.head_width), config.dtype)
    sinks_B = None if sinks is None else jnp.full(rows, sinks, jnp.int32)
    return tuple(Cache(zeros(count), zeros(count), sinks=sinks_B) for count in slots)


def begin(layer: Cache, key_BTKC, value_BTKC, segments_BT) -> Cache:
    """Return one layer's cache with a first text of T tokens read, of which padding (segment 0) is at the end."""
    length, slots = key_BTKC.shape[1], layer.slots
    put = lambda old, new_BTKC: _placed(old, new_BTKC.swapaxes(1, 2), segments_BT, length, slots)
    return layer._replace(key=put(layer.key, key_BTKC), value=put(layer.value, value_BTKC))


def _placed(old_BKSC, new_BKTC, segments_BT, length: int, slots: int):
    """Return the slots with the last positions of each row."""
    new_BKTC = new_BKTC.astype(old_BKSC.dtype)
    if length <= slots:
        return old_BKSC.at[:, :, :length].set(new_BKTC)
    last_B1 = jnp.sum(segments_BT > 0, axis=1, keepdims=True) - 1
    place_BS = last_B1 - (last_B1 - jnp.arange(slots)[None]) % slots
    return jnp.take_along_axis(new_BKTC, jnp.maximum(place_BS, 0)[:, None, :, None], axis=2)


def write(layer: Cache, key_BTKC, value_BTKC, positions_BT, is_rolling: bool) -> Cache:
    """Return one layer's cache with keys and values put at their positions.

    is_rolling: positions beyond its end take the slots of the oldest; else they are dropped.
    """
    return put(layer, key_BTKC, value_BTKC, positions_BT % layer.slots if is_rolling else positions_BT)


def put(layer: Cache, key_BTKC, value_BTKC, slots_BT) -> Cache:
    """Return one layer's cache with keys and values in these slots; those beyond its end are dropped."""
    rows = jnp.arange(key_BTKC.shape[0])[:, None]

    def placed(old_BKSC, new_BTKC):
        bits = lambda array: _bits(array.astype(old_BKSC.dtype))
        written = bits(old_BKSC).at[rows, :, slots_BT].set(bits(new_BTKC), mode="drop")
        return jax.lax.bitcast_convert_type(written, old_BKSC.dtype)

    return layer._replace(key=placed(layer.key, key_BTKC), value=placed(layer.value, value_BTKC))


def _bits(array):
    """Return 16-bit numbers as whole ones: XLA:CPU would turn all of a cache into float32 and back to write a slot."""
    return jax.lax.bitcast_convert_type(array, jnp.uint16) if array.dtype == jnp.bfloat16 else array


def read(layer: Cache):
    """Return the keys and values of all slots, `(B, S, K, C)`."""
    return layer.key.swapaxes(1, 2), layer.value.swapaxes(1, 2)


def picked(layers: tuple[Cache, ...], rows_B) -> tuple[Cache, ...]:
    """Return the caches with each row in place of another, for which an encoder read the same: that stays."""

    def pick(layer: Cache) -> Cache:
        memory = {"memory_key": layer.memory_key, "memory_value": layer.memory_value}
        memory["memory_segments"] = layer.memory_segments
        moved = jax.tree.map(lambda leaf: leaf[rows_B], layer._replace(**dict.fromkeys(memory)))
        return moved._replace(**memory)

    return tuple(map(pick, layers))
