"""What a source of text is: records (id, text) in an order that no file system decides, and a key of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lm.refusal import Refusal


class Record(NamedTuple):
    """One text with its id. Records of one document, where it is given, are held out together."""

    id: str
    text: str
    document: str = ""


class Source(NamedTuple):
    """A stream of records, and a cheap key that changes whenever they may have changed.

    valid: the source's own records for validation, where it has some; then all of `records` are for training.
    paths: files that no other source of a mixture may read too, since it would hold out other records of them.
    """

    records: Callable[[], Iterator[Record]]
    key: str
    size: int  # bytes, about, of all that is read; for progress
    valid: Callable[[], Iterator[Record]] | None = None
    paths: frozenset[Path] = frozenset()


def text_of(value: object, place: str, field: str) -> str:
    """Return the text that a record has in a field: a string, or bytes of UTF-8.

    Raises:
      Refusal: it is neither; the sentence names `place`, the file and the line or row of it.
    """
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise Refusal(f"data.source: {place} has no text in {field!r} (data.text_field).")
        text.encode()
    except UnicodeDecodeError as error:
        raise Refusal(f"data.source: {place}: byte {error.start} is not UTF-8 ({error.reason}).") from None
    except UnicodeEncodeError:
        raise Refusal(f"data.source: {place} holds half of a surrogate pair: no text.") from None
    return text


def stamps(root: Path, paths: list[Path]) -> str:
    """Return name, size and time of every file: equal stamps mean that nothing needs to be read again."""
    return json.dumps([[p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in paths])
