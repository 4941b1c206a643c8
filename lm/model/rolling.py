"""A cache that rolls: of a text of any length its first tokens and its last, at places counted in the cache.

Xiao et al. 2024, arXiv 2309.17453, §3.2: the first tokens are sinks, which attention needs whatever they say. Of W
slots the first are the sinks', the others' tokens give way to later ones; keys are kept unturned. A token n that has
itself in the cache stands at place min(n, W − 1), the sinks at their own, and the others as far before n as they are.
"""

import jax.numpy as jnp

from lm.model import cache as caches
from lm.model import masks

NONE = -1  # the number of no token


def follow(layer: caches.Cache, query_BTHC, key_BTKC, value_BTKC, numbers_BT, turn):
    """Return the cache with T tokens more, and queries, keys, values and mask, as `attend` takes them.

    With several tokens, each sees what it would were they read one by one; queries and keys are then twice as wide,
    since a query stands elsewhere to sinks than to others, and values too.

    Args:
      layer: of one layer, with `sinks`.
      query_BTHC, key_BTKC: not turned.
      numbers_BT: of the tokens in their text; NONE, at the end of a row: padding. At most W − sinks.
      turn: (x, places) → x as it is at these places.
    """
    slots_BT = _slots(layer, numbers_BT)
    if numbers_BT.shape[1] == 1:
        layer = caches.put(layer, key_BTKC, value_BTKC, slots_BT)
        key_BSKC, value_BSKC = caches.read(layer, key_BTKC.dtype)
        distance_B1S = _distance(layer, numbers_BT, _held(layer, numbers_BT))
        place_B1 = jnp.minimum(numbers_BT, layer.slots - 1)
        key_BSKC = turn(key_BSKC, place_B1 - distance_B1S[:, 0])
        return layer, turn(query_BTHC, place_B1), key_BSKC, value_BSKC, masks.apart(distance_B1S)
    first_B1 = numbers_BT[:, :1]
    numbers_BS = jnp.concatenate([_held(layer, first_B1 - 1), numbers_BT], axis=1)
    beside = lambda old_BSKC, new_BTKC: jnp.concatenate([old_BSKC, new_BTKC.astype(old_BSKC.dtype)], axis=1)
    key_BSKC, value_BSKC = map(beside, caches.read(layer, key_BTKC.dtype), (key_BTKC, value_BTKC))
    mask = masks.apart(_distance(layer, numbers_BT, numbers_BS))
    layer = caches.put(layer, key_BTKC, value_BTKC, slots_BT)
    is_sink_BS11 = (numbers_BS < layer.sinks[:, None])[:, :, None, None]
    near = lambda x, numbers: turn(x, numbers - first_B1)  # so that angles stay small
    query_BTHC = _wide(turn(query_BTHC, jnp.minimum(numbers_BT, layer.slots - 1)), near(query_BTHC, numbers_BT))
    sinks_BSKC = jnp.where(is_sink_BS11, turn(key_BSKC, numbers_BS), 0)
    key_BSKC = _wide(sinks_BSKC, jnp.where(is_sink_BS11, 0, near(key_BSKC, numbers_BS)))
    return layer, query_BTHC, key_BSKC, _wide(value_BSKC, jnp.zeros_like(value_BSKC)), mask


def _wide(*halves):
    return jnp.concatenate(halves, axis=-1)


def _slots(layer, numbers_BT):
    """Return the slot of each token; for NONE there is none."""
    sinks_B1 = layer.sinks[:, None]
    others_BT = sinks_B1 + (numbers_BT - sinks_B1) % (layer.slots - sinks_B1)
    return jnp.where(numbers_BT == NONE, layer.slots, jnp.where(numbers_BT < sinks_B1, numbers_BT, others_BT))


def _held(layer, last_B1):
    """Return the number of the token in each slot, or NONE, `(B, S)`, when that was the last that was written."""
    sinks_B1, slots_1S = layer.sinks[:, None], jnp.arange(layer.slots)[None]
    others_BS = last_B1 - (last_B1 - slots_1S) % (layer.slots - sinks_B1)
    others_BS = jnp.where(others_BS < sinks_B1, NONE, others_BS)
    return jnp.where(slots_1S < sinks_B1, jnp.where(slots_1S <= last_B1, slots_1S, NONE), others_BS)


def _distance(layer, numbers_BT, numbers_BS):
    """Return how far before token T token S stands, `(B, T, S)`; NONE where it is not seen."""
    query_BT1, key_B1S, sinks_B11 = numbers_BT[:, :, None], numbers_BS[:, None], layer.sinks[:, None, None]
    distance_BTS = query_BT1 - key_B1S
    is_near_BTS = (distance_BTS >= 0) & (distance_BTS < layer.slots - sinks_B11)
    is_sink_BTS = (key_B1S < sinks_B11) & (distance_BTS >= 0)
    distance_BTS = jnp.where(is_sink_BTS, jnp.minimum(query_BT1, layer.slots - 1) - key_B1S, distance_BTS)
    return jnp.where((key_B1S != NONE) & (is_near_BTS | is_sink_BTS), distance_BTS, NONE)
