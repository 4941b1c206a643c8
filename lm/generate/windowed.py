"""Prompts of any length in; a reading whose cache rolls out, where the model has such, so that texts have no end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.generate import decode
from lm.generate.method import Ready, padded, rounded
from lm.model.positions import ADDED
from lm.refusal import Refusal

_CHUNK = 256  # tokens of a long prompt that are read at once


def check(ready: Ready, section: Any) -> None:
    """Refuse a window that the model cannot read in.

    Raises:
      Refusal: it is one that reads a prompt as a whole, or of a shorter context.
    """
    window, config = section.window, ready.model.config
    if window and (ready.is_answering or ready.has_prefix):
        raise Refusal(f"sample.window is {window}: this model reads its prompt as a whole; set it to 0.")
    if window > config.context:
        raise Refusal(f"sample.window is {window}: it must be at most the model's context ({config.context}).")


def rolls(ready: Ready, section: Any) -> bool:
    """Say whether texts are read in a cache that rolls: with a window, where tokens can change their places after they
    were read, as positions that are added to them cannot.
    """
    return bool(section.window) and ready.model.config.positions not in ADDED


def read(ready: Ready, section: Any, rows: Sequence[Sequence[int]], count: int, copies: int) -> decode.Reading:
    """Return the reading of prompts of any length, in a cache of `section.window` tokens, with room for `count` more.

    A first part is read at once, the rest in chunks of one length, so that few programs are compiled, and none that
    holds the scores of all tokens beside all.
    """
    window = section.window
    longest, first = max(map(len, rows)), min(window, _CHUNK)
    reading = decode.prefill(
        ready.model,
        ready.params,
        *padded([row[:first] for row in rows], rounded(min(longest, first), first)),
        slots=window,
        room=rounded(longest + count, 1 << 30),
        sinks=np.int32(section.sinks),
        cache_dtype=ready.cache_dtype,
    )
    size = min(_CHUNK, window // 2)
    for start in range(first, longest, size):
        chunk = padded([row[start : start + size] for row in rows], size)
        reading = decode.read_on(ready.model, ready.params, reading, *chunk)
    return decode.repeated(reading, copies)
