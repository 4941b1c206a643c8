"""The Batch: all that crosses from host to device in a step."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Rows of a step, each field `(B, T)` but the source; NumPy arrays on the host, sharded over rows on the devices.

    inputs: int32 ids that the model reads; of an encoder–decoder, its decoder.
    targets: int32 ids that it is scored on, or classes.
    weights: float32, how much each target counts (0 for padding).
    segments: int32, which record of its window a token belongs to, from 1; 0 is padding.
    positions: int32, a token's place in its segment, from 0.
    source: int32 `(B,)`, which part of the mixture a row is from.

    And, or None where an objective has no use for them:
    prefix: bool, tokens that all of their segment may see.
    types: int32, which of a pair of texts a token belongs to.
    encoder_inputs, encoder_segments, encoder_positions: int32 `(B, S)`, what an encoder–decoder's encoder reads; the
      decoder's segment n sees the encoder's segment n.
    """

    inputs: Any
    targets: Any
    weights: Any
    segments: Any
    positions: Any
    source: Any
    prefix: Any = None
    types: Any = None
    encoder_inputs: Any = None
    encoder_segments: Any = None
    encoder_positions: Any = None
