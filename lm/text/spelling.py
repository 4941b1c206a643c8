"""A Tokenizer in, the bytes out that each of its tokens writes behind others, and what the first of a text loses."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lm.text.kinds import byte_letters
from lm.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BEFORE = ("a", ".")  # texts behind which a token writes what it always writes


class Spelling(NamedTuple):
    """tokens: bytes of each id, nothing for one that writes none, or not always the same.

    is_led: whether what begins with a space loses it where it begins a text.
    """

    tokens: tuple[bytes, ...]
    is_led: bool


def spelling(tokenizer: Tokenizer) -> Spelling:
    """Return the Spelling of a tokenizer's ids."""
    unwritten = {*tokenizer.specials.unwritten, *tokenizer.ends}
    written = [index for index in range(tokenizer.size) if index not in unwritten]
    steps = set(_steps(json.loads(tokenizer.to_json())["decoder"]))
    tokens = [b""] * tokenizer.size
    if "ByteLevel" in steps:
        bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        for index in written:
            text = tokenizer.spelled(index)
            is_plain = bytes_of.keys() >= set(text)
            tokens[index] = bytes(map(bytes_of.get, text)) if is_plain else text.encode()
        return Spelling(tuple(tokens), False)
    before = [tokenizer.encode(text).tolist() for text in _BEFORE]
    is_led = False
    for index in written:
        byte = _BYTE.fullmatch(tokenizer.spelled(index)) if "ByteFallback" in steps else None
        texts = {tokenizer.decode([index], after) for after in before}
        if byte:
            tokens[index] = bytes.fromhex(byte[1])
        elif len(texts) == 1:
            (text,) = texts
            tokens[index] = text.encode()
            is_led |= text[:1] == " " and tokenizer.decode([index]) == text[1:]
    return Spelling(tuple(tokens), is_led)


def _steps(decoder: Any) -> Iterator[str]:
    """Yield the types of a tokenizer.json's decoders."""
    if decoder:
        yield decoder["type"]
        for step in decoder.get("decoders", ()):
            yield from _steps(step)
