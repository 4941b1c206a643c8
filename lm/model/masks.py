"""Who may look at whom: described by a few small arrays, built into a mask only where attention needs it."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Mask(NamedTuple):
    """Causal attention inside segments: a query sees the keys at or before its place that share its segment.

    query_places: int32 `(B or 1, T)`. key_places: int32 `(B or 1, S)`.
    segments: int32 `(B, T)` of queries and keys alike (S = T), or None when there is only one.

    For two records of two tokens, allowed is:
        1 0 0 0
        1 1 0 0
        0 0 1 0
        0 0 1 1
    """

    query_places: Any
    key_places: Any
    segments: Any = None


def causal(segments_BT) -> Mask:
    """Return the mask of a batch of packed rows."""
    places = jnp.arange(segments_BT.shape[1])[None]
    return Mask(places, places, segments_BT)


def cached(positions_BT, length: int) -> Mask:
    """Return the mask of queries at `positions_BT` over a cache of `length` slots, slot p holding position p."""
    return Mask(positions_BT, jnp.arange(length)[None])


def allowed(mask: Mask):
    """Return the boolean mask `(B or 1, T, S)`."""
    allowed_BTS = mask.key_places[:, None, :] <= mask.query_places[:, :, None]
    if mask.segments is not None:
        allowed_BTS = allowed_BTS & (mask.segments[:, :, None] == mask.segments[:, None, :])
    return allowed_BTS
