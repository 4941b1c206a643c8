"""A tokenizer.json from anywhere in, the tokenizer out: what would harm is refused before the library sees it."""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from lm.refusal import Refusal
from lm.text import sentencepiece

FILE = "tokenizer.json"
IDS = 1 << 24  # more than any vocabulary has
_GROWTH = 1000  # of a text, by what replaces its parts
_PARTS = 2_000_000  # of a file; of those published the largest have 1.4 million
_FILE = 50_000_000  # bytes at most; of those published the largest have 35 million


def read_bytes(path: Path, what: str) -> bytes:
    """Return what a file of a tokenizer holds; `what` is it called.

    Raises:
      Refusal: it cannot be read, or is larger than any tokenizer is.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE + 1)
    except OSError as error:
        raise Refusal(f"{what} cannot be read ({error.strerror}).") from None
    if len(data) > _FILE:
        raise Refusal(f"{what} has more than {_FILE:,} bytes, which no tokenizer has.")
    return data


def from_json(data: bytes, what: str) -> tokenizers.Tokenizer:
    """Return the tokenizer of a tokenizer.json; what it says of cutting texts short, padding and chance does not hold.

    Raises:
      Refusal: the data is not that; `what` is it called.
    """

    def make() -> tokenizers.Tokenizer:
        _check_parts(data)
        inner = tokenizers.Tokenizer.from_str(data.decode())
        _check_growth(inner)
        inner.no_truncation()
        inner.no_padding()
        if isinstance(inner.model, tokenizers.models.BPE):
            inner.model.dropout = None
        inner.encode("\U0010fffd")  # refuses here, not in the midst of a text, where it has no way with the unknown
        if max(inner.get_vocab().values(), default=IDS) >= IDS:
            raise ValueError(f"its ids are not from 0 to {IDS - 1}")
        return inner

    return guarded(make, f"{what} is no {FILE}")


def _check_parts(data: bytes) -> None:
    """Refuse what the library would take too much memory for: where that fails it ends the process."""
    if data.count(b",") > _PARTS:
        raise ValueError(f"it has more than {_PARTS:,} parts")
    if b"recompiled" in data or re.search(rb"\\u00[4-7]", data):  # letters may be written by their numbers
        for map_ in _values(json.loads(data), "precompiled_charsmap"):
            if not isinstance(map_, str) or sentencepiece.is_cut_short(base64.b64decode(map_)):
                raise ValueError("its character map is cut short")


def _check_growth(inner: tokenizers.Tokenizer) -> None:
    """Refuse steps that make a text many times longer, each the one before's."""
    for step in filter(None, (inner.normalizer, inner.decoder)):
        if math.prod(max(1, len(text)) for text in _values(json.loads(step.__getstate__()), "content")) > _GROWTH:
            raise ValueError(f"it makes texts more than {_GROWTH} times longer")


def _values(said: Any, name: str) -> Iterator[Any]:
    """Yield all values of a name in JSON."""
    for key, value in said.items() if isinstance(said, dict) else enumerate(said if isinstance(said, list) else ()):
        if key == name:
            yield value
        else:
            yield from _values(value, name)


def guarded(call: Callable[[], Any], complaint: str) -> Any:
    """Return what a call of the tokenizers library gives; its errors become the complaint, and what they say.

    Raises:
      Refusal: it fails. A panic of its Rust is no Exception, and is caught too.
    """
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, Refusal):
        raise
    except BaseException as error:
        raise Refusal(f"{complaint} ({' '.join(str(error).split()).rstrip('.')[:200]}).") from None
