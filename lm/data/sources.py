"""What a source is: records, each a text or a pair, in an order that no file system decides, and a key of them."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm.refusal import Refusal

TEXT, TARGET = "data.text_field", "data.target_field"


class Record(NamedTuple):
    """One text with its id; of a pair the input, with its target.

    Records of one document, where it is given, are held out together.
    """

    id: str
    text: str
    target: str | None = None
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


def fields(section: Any) -> dict[str, str]:
    """Return the name of the field that a record's text stands in, and of a pair's target, each by its option."""
    target = {TARGET: section.target_field} if section.unit == "pair" else {}
    return {TEXT: section.text_field} | target


def texts_of(row: object, place: str, fields: Mapping[str, str]) -> list[str]:
    """Return the text, or input and target, of a row: nothing where one of them is empty.

    Each is a string, or bytes of UTF-8; a target may be a whole number too, such as a class: its digits are the text.

    Args:
      row: a dictionary.
      place: the file and the line or row of it.
      fields: as `fields` returns them.

    Raises:
      Refusal: one of them is no text; the sentence names `place`.
    """
    texts = [_text(row, place, option, name) for option, name in fields.items()]
    return texts if all(texts) else []


def _text(row: object, place: str, option: str, name: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if option == TARGET and type(value) is int:
        value = str(value)
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str):
            have = ", ".join(map(repr, row)) if isinstance(row, dict) and row else "no fields"
            raise Refusal(f"data.source: {place} has no text in {name!r} ({option}) among {have}.")
        text.encode()
    except UnicodeDecodeError as error:
        raise Refusal(f"data.source: {place}: byte {error.start} is not UTF-8 ({error.reason}).") from None
    except UnicodeEncodeError:
        raise Refusal(f"data.source: {place} holds half of a surrogate pair: no text.") from None
    return text


def stamps(root: Path, paths: list[Path]) -> str:
    """Return name, size and time of every file: equal stamps mean that nothing needs to be read again."""
    return json.dumps([[p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in paths])
