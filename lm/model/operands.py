"""What attention is computed of in, the same as arrays by name out: those that a kernel takes of a device's part."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from lm.model import masks

NONE = -1  # the segment of tokens that only fill up a length


def operands(query_BTHC, key_BSKC, value_BSKC, mask: masks.Mask, multiple: int) -> dict[str, Any]:
    """Return query, key, value, query_segments, key_segments, query_places and, where there is one, prefix.

    Both lengths are filled up to a multiple; places are counted anew.
    """
    more = lambda array: -array.shape[1] % multiple
    longer = lambda array: jnp.pad(array, ((0, 0), (0, more(array)), *[(0, 0)] * (array.ndim - 2)))
    marked = lambda segments: jnp.pad(segments, ((0, 0), (0, more(segments))), constant_values=NONE)
    arrays = {
        "query": longer(query_BTHC),
        "key": longer(key_BSKC),
        "value": longer(value_BSKC),
        "query_segments": marked(mask.query_segments),
        "key_segments": marked(mask.key_segments),
        "query_places": jnp.arange(query_BTHC.shape[1] + more(query_BTHC))[None],
    }
    return arrays if mask.prefix is None else arrays | {"prefix": longer(mask.prefix)}


def whole(function, arrays: Mapping[str, Any]):
    """Return the function of the arrays: one device has all of them."""
    return function(arrays)
