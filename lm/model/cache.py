"""Keys and values of the positions read so far: an explicit pytree, in and out of every call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.model.whole import Whole, restored, rounded


class Cache(NamedTuple):
    """What one layer of a decoder has read; a model's is a tuple of its layers'.

    key, value: `(B, K, S, C)`, slot p mod S of a row holds position p; an array, or a whole.Whole.
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
        return jax.tree.leaves(self.key)[0].shape[2]


def empty(
    config, rows: int, length: int, ahead: int | None = None, sinks=None, dtype: str = "model"
) -> tuple[Cache, ...]:
    """Return the caches of all layers for `rows` sequences of at most `length` positions.

    Args:
      config: config.model, resolved.
      ahead: most tokens that a pass adds to what was read; a layer with a window then keeps no more slots than that
        takes. None: as many as it likes.
      sinks: of caches that roll, which then have `length` slots in every layer; None: they do not.
      dtype: of keys and values, as sample.cache_dtype names them.
    """
    windows = [0] * config.layers
    if config.windows and ahead is not None and sinks is None:
        windows = [config.windows[layer % len(config.windows)] for layer in range(config.layers)]
    slots = [min(length, window + ahead - 1) if window else length for window in windows]
    shape = lambda count: (rows, config.kv_heads, count, config.head_width)
    kept = "float32" if jax.default_backend() == "cpu" else config.dtype  # of 16 bits it would make 32 in every step
    zeros = lambda count: jnp.zeros(shape(count), kept)
    if dtype == "int8":
        zeros = lambda count: Whole(jnp.zeros(shape(count), dtype), jnp.zeros(shape(count)[:-1], jnp.float32))
    sinks_B = None if sinks is None else jnp.full(rows, sinks, jnp.int32)
    return tuple(Cache(zeros(count), zeros(count), sinks=sinks_B) for count in slots)


def begin(layer: Cache, key_BTKC, value_BTKC, segments_BT) -> Cache:
    """Return one layer's cache with a first text of T tokens read, of which padding (segment 0) is at the end."""
    length, slots = key_BTKC.shape[1], layer.slots
    put = lambda old, new: _placed(old, new.swapaxes(1, 2), segments_BT, length, slots)
    return layer._replace(key=_each(put, layer.key, key_BTKC), value=_each(put, layer.value, value_BTKC))


def _each(put, old, new_BTKC):
    """Return what `put` makes of old slots and new keys or values; of a Whole, of its numbers and of its scales."""
    return jax.tree.map(put, old, rounded(new_BTKC) if isinstance(old, Whole) else new_BTKC.astype(old.dtype))


def _placed(old_BKS, new_BKT, segments_BT, length: int, slots: int):
    """Return the slots with the last positions of each row."""
    if length <= slots:
        return old_BKS.at[:, :, :length].set(new_BKT)
    last_B1 = jnp.sum(segments_BT > 0, axis=1, keepdims=True) - 1
    place_BS = jnp.maximum(last_B1 - (last_B1 - jnp.arange(slots)[None]) % slots, 0)
    return jnp.take_along_axis(new_BKT, place_BS.reshape(-1, 1, slots, *[1] * (new_BKT.ndim - 3)), axis=2)


def write(layer: Cache, key_BTKC, value_BTKC, positions_BT, is_rolling: bool) -> Cache:
    """Return one layer's cache with keys and values put at their positions.

    is_rolling: positions beyond its end take the slots of the oldest; else they are dropped.
    """
    return put(layer, key_BTKC, value_BTKC, positions_BT % layer.slots if is_rolling else positions_BT)


def put(layer: Cache, key_BTKC, value_BTKC, slots_BT) -> Cache:
    """Return one layer's cache with keys and values in these slots; those beyond its end are dropped."""
    if slots_BT.size == 1:  # which XLA would write into a copy of the cache; the same slot twice it writes in place
        key_BTKC, value_BTKC, slots_BT = (jnp.repeat(array, 2, axis=1) for array in (key_BTKC, value_BTKC, slots_BT))
    rows = jnp.arange(key_BTKC.shape[0])[:, None]
    placed = lambda old_BKS, new_BTK: old_BKS.at[rows, :, slots_BT].set(new_BTK, mode="drop")
    return layer._replace(key=_each(placed, layer.key, key_BTKC), value=_each(placed, layer.value, value_BTKC))


def read(layer: Cache, dtype):
    """Return the keys and values of all slots, `(B, S, K, C)`; dtype: of what are whole numbers in the cache."""
    real = lambda held: restored(held, dtype) if isinstance(held, Whole) else held
    return real(layer.key).swapaxes(1, 2), real(layer.value).swapaxes(1, 2)


def held(layer: Cache, array):
    """Return keys or values as a cache of whole numbers gives them back."""
    return restored(rounded(array), array.dtype) if isinstance(layer.key, Whole) else array


def picked(layers: tuple[Cache, ...], rows_B) -> tuple[Cache, ...]:
    """Return the caches with each row in place of another, for which an encoder read the same: that stays."""

    def pick(layer: Cache) -> Cache:
        memory = {"memory_key": layer.memory_key, "memory_value": layer.memory_value}
        memory["memory_segments"] = layer.memory_segments
        moved = jax.tree.map(lambda leaf: leaf[rows_B], layer._replace(**dict.fromkeys(memory)))
        return moved._replace(**memory)

    return tuple(map(pick, layers))
