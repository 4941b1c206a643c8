"""A data section and training text in, its tokenizer out: learned from the text, or read from a file."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from lm.config.data import LEARNED
from lm.refusal import Refusal
from lm.text import kinds, sentencepiece
from lm.text.bounded import from_json, guarded, read_bytes
from lm.text.normalize import FORMS
from lm.text.tokenizer import END, SENTINEL, Tokenizer, special_tokens

# What is taken for the end of a text where data.end_token names nothing: the first of them that is a special token.
ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "[SEP]", "<|im_end|>")


def learn(section: Any, texts: Iterable[str]) -> Tokenizer:
    """Return the tokenizer of a data section.

    Args:
      section: config.data.
      texts: the training split, in section.normalization; read once, and only as far as the kind needs.

    Raises:
      Refusal: a file that cannot be read, or has no end-of-text token, or one that ordinary text would spell.
    """
    kind, _, rest = section.tokenizer.partition(":")
    inner = KINDS[kind](texts, rest, section.end_token or END)
    if form := FORMS[section.normalization]:
        inner.normalizer = normalizers.Sequence([form(), *filter(None, [inner.normalizer])])
    end = _end(inner, section)
    if kind in LEARNED:
        inner.add_special_tokens([*filter(None, [section.mask_token]), *map(SENTINEL.format, range(section.sentinels))])
    _check_specials(inner, section, end)
    keep_unspelled(inner, f"data.tokenizer {section.tokenizer!r}")
    return Tokenizer(inner, section.tokenizer, end, mask=section.mask_token)


def reads_text(kind: str) -> bool:
    """Say whether a tokenizer, as data.tokenizer spells it, depends on the training split."""
    return kind.partition(":")[0] not in ("byte", "file", "sentencepiece", "place")


def key(section: Any) -> str:
    """Return what a tokenizer depends on beside the training split: the section's words, and what a file holds."""
    kind, _, rest = section.tokenizer.partition(":")
    digest = hashlib.sha256(_read(rest)).hexdigest() if kind in ("file", "sentencepiece") else ""
    specials = [[section.mask_token, section.sentinels]] if section.mask_token or section.sentinels else []
    return json.dumps([section.tokenizer, section.normalization, section.end_token, digest, *specials])


def _file(texts: Iterable[str], path: str, end: str) -> tokenizers.Tokenizer:
    """A tokenizer.json."""
    return from_json(_read(path), f"data.tokenizer: {path}")


def _sentencepiece(texts: Iterable[str], path: str, end: str) -> tokenizers.Tokenizer:
    """A .model of SentencePiece."""
    data = _read(path)
    complaint = f"data.tokenizer: {path} is no SentencePiece model that can be followed"
    return guarded(lambda: sentencepiece.convert(sentencepiece.read(data)), complaint)


def _place(texts: Iterable[str], path: str, end: str) -> tokenizers.Tokenizer:
    raise Refusal("data.tokenizer is 'place': that is read with init.from_place, and never learned.")


KINDS = {
    "byte": kinds.byte,
    "char": kinds.char,
    "bpe": kinds.bpe,
    "unigram": kinds.unigram,
    "wordpiece": kinds.wordpiece,
    "file": _file,
    "sentencepiece": _sentencepiece,
    "place": _place,
}


def _read(path: str) -> bytes:
    return read_bytes(Path(os.path.expanduser(path)), f"data.tokenizer: {path}")


def _end(inner: tokenizers.Tokenizer, section: Any) -> str:
    """Return the spelling of the end-of-text token."""
    names = special_tokens(inner)
    for name in (section.end_token,) if section.end_token else ENDS:
        if name in names:
            return name
    raise Refusal(
        f"data.end_token is {section.end_token!r}: it must be a special token of data.tokenizer {section.tokenizer!r}, "
        f"which has {', '.join(map(repr, names)) or 'none'}."
    )


def _check_specials(inner: tokenizers.Tokenizer, section: Any, end: str) -> None:
    """Refuse a mask token or sentinels that the tokenizer of a file does not have."""
    names = special_tokens(inner)
    if section.mask_token == end:
        raise Refusal(f"data.mask_token is {end!r}: that is the end-of-text token; name another.")
    if section.mask_token and section.mask_token not in names:
        raise Refusal(
            f"data.mask_token is {section.mask_token!r}: it must be a special token of data.tokenizer "
            f"{section.tokenizer!r}, which has {', '.join(map(repr, names))}."
        )
    if section.sentinels and (name := SENTINEL.format(section.sentinels - 1)) not in names:
        raise Refusal(
            f"data.sentinels is {section.sentinels}: data.tokenizer {section.tokenizer!r} has no special token "
            f"{name!r}."
        )


def keep_unspelled(inner: tokenizers.Tokenizer, what: str) -> None:
    """See to it that no text gets a special token: where the model would find one in a text, the text is split there.

    (Unigram's vocabulary holds its special tokens like any other; other models have no way to them.)

    Raises:
      Refusal: splitting does not help; `what` names the tokenizer.
    """
    inner.encode_special_tokens = True

    def spelled() -> list[str]:
        return [name for name in special_tokens(inner) if _is_one_token(inner, name)]

    if found := spelled():
        pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in found)
        split = pre_tokenizers.Split(Regex(pattern), "merged_with_previous")
        inner.pre_tokenizer = pre_tokenizers.Sequence([*filter(None, [inner.pre_tokenizer]), split])
    if found := spelled():
        raise Refusal(f"{what} makes a special token of the text {found[0]!r}.")


def _is_one_token(inner: tokenizers.Tokenizer, name: str) -> bool:
    """Say whether a text that spells a special token gets it, alone or inside a word."""
    found = inner.encode(f"{name} a{name}a", add_special_tokens=False)
    places = [(start, start + len(name)) for start in (0, len(name) + 2)]
    return any(
        index == inner.token_to_id(name) and place in places
        for index, place in zip(found.ids, found.offsets, strict=True)
    )
