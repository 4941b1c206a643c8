"""The Batch: all that crosses from host to device in a step."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Rows of a step, each field `(B, T)` but the source; NumPy arrays on the host, sharded over rows on the devices.

    inputs: int32 ids that the model reads.
    targets: int32 ids that it is scored on.
    weights: float32, how much each target counts (0 for padding).
    segments: int32, which record of its window a token belongs to, from 1; 0 is padding.
    positions: int32, a token's place in its segment, from 0.
    source: int32 `(B,)`, which part of the mixture a row is from.
    """

    inputs: Any
    targets: Any
    weights: Any
    segments: Any
    positions: Any
    source: Any
