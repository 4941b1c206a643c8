"""Who may look at whom: described by a few small arrays, built into a mask only where attention needs it."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Mask(NamedTuple):
    """Attention inside segments: a query sees the keys that share its segment, at or before its place if causal.

    query_places: int32 `(B or 1, T)`. key_places: int32 `(B or 1, S)`.
    query_segments, key_segments: int32 `(B, T)` and `(B, S)`, or None when there is only one.
    is_causal: keys after the query are hidden.
    prefix: bool `(B, S)`, keys that all of their segment see, causal or not; or None.
    window: a query sees keys less than this many places away; None: all.
    distance: int32 `(B, T, S)`, instead of places; None: it follows from them.

    For two records of two tokens, and for one of four with a window of 2, causal, allowed is:
        1 0 0 0     1 0 0 0
        1 1 0 0     1 1 0 0
        0 0 1 0     0 1 1 0
        0 0 1 1     0 0 1 1
    """

    query_places: Any = None
    key_places: Any = None
    query_segments: Any = None
    key_segments: Any = None
    is_causal: bool = True
    prefix: Any = None
    window: Any = None
    distance: Any = None


def packed(segments_BT, is_causal: bool = True, prefix_BT=None) -> Mask:
    """Return the mask of a batch of packed rows that look at themselves."""
    places = jnp.arange(segments_BT.shape[1])[None]
    return Mask(places, places, segments_BT, segments_BT, is_causal, prefix_BT)


def cached(positions_BT, slots: int, window: int | None = None) -> Mask:
    """Return the mask of queries at `positions_BT`, just written to a cache of so many slots.

    Slot p holds position p; with a window, in which slots are used anew, the last p that is so modulo their number.
    """
    slots_1S = jnp.arange(slots)[None]
    if window is None:
        return Mask(positions_BT, slots_1S)
    last_B1 = jnp.max(positions_BT, axis=1, keepdims=True)
    places_BS = last_B1 - (last_B1 - slots_1S) % slots
    unseen = jnp.iinfo(jnp.int32).max
    return Mask(positions_BT, jnp.where(places_BS < 0, unseen, places_BS), window=window)


def across(segments_BT, segments_BS) -> Mask:
    """Return the mask of a decoder's rows that look at an encoder's."""
    places = lambda segments: jnp.arange(segments.shape[1])[None]
    return Mask(places(segments_BT), places(segments_BS), segments_BT, segments_BS, is_causal=False)


def apart(distance_BTS) -> Mask:
    """Return the mask of queries that see keys at these distances; none at a negative one."""
    return Mask(distance=distance_BTS)


def distance(mask: Mask):
    """Return how far before its query each key is, `(B or 1, T, S)`; negative for keys after it."""
    if mask.distance is not None:
        return mask.distance
    return mask.query_places[:, :, None] - mask.key_places[:, None, :]


def allowed(mask: Mask):
    """Return the boolean mask `(B or 1, T, S)`."""
    distance_BTS = distance(mask)
    allowed_BTS = (distance_BTS >= 0) | jnp.logical_not(mask.is_causal)
    if mask.prefix is not None:
        allowed_BTS = allowed_BTS | mask.prefix[:, None, :]
    if mask.window is not None:
        allowed_BTS = allowed_BTS & (jnp.abs(distance_BTS) < mask.window)
    if mask.query_segments is not None:
        allowed_BTS = allowed_BTS & (mask.query_segments[:, :, None] == mask.key_segments[:, None, :])
    return allowed_BTS
