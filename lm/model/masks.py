"""Who may look at whom: described by a few small arrays, built into a mask only where attention needs it."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Mask(NamedTuple):
    """Causal attention inside segments: a query sees the keys at or before its place that share its segment.

    query_places: int32 `(B or 1, T)`. key_places: int32 `(B or 1, S)`.
    segments: int32 `(B, T)` of queries and keys alike (S = T), or None when there is only one.
    window: a query sees this many places, its own the last of them; None: all.

    For two records of two tokens, and for one of four with a window of 2, allowed is:
        1 0 0 0     1 0 0 0
        1 1 0 0     1 1 0 0
        0 0 1 0     0 1 1 0
        0 0 1 1     0 0 1 1
    """

    query_places: Any
    key_places: Any
    segments: Any = None
    window: Any = None


def causal(segments_BT) -> Mask:
    """Return the mask of a batch of packed rows."""
    places = jnp.arange(segments_BT.shape[1])[None]
    return Mask(places, places, segments_BT)


def cached(positions_BT, length: int) -> Mask:
    """Return the mask of queries at `positions_BT` over a cache of `length` slots, slot p holding position p."""
    return Mask(positions_BT, jnp.arange(length)[None])


def distance(mask: Mask):
    """Return how far before its query each key is, `(B or 1, T, S)`; negative for keys after it."""
    return mask.query_places[:, :, None] - mask.key_places[:, None, :]


def allowed(mask: Mask):
    """Return the boolean mask `(B or 1, T, S)`."""
    distance_BTS = distance(mask)
    allowed_BTS = distance_BTS >= 0
    if mask.window is not None:
        allowed_BTS = allowed_BTS & (distance_BTS < mask.window)
    if mask.segments is not None:
        allowed_BTS = allowed_BTS & (mask.segments[:, :, None] == mask.segments[:, None, :])
    return allowed_BTS
