"""A SentencePiece .model in, the tokenizer that cuts text as it does out; nothing of SentencePiece is needed for it.

Two things are the tokenizers library's own: of two cuts that are equally likely it may take the other one, and its
compiled normaliser sees letters with their marks, so that a compatibility character before a combining mark loses it.
Text in the form NFKC has none of these.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

SPACE = "▁"  # what the pieces write for a space
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)  # types of pieces
_UNIGRAM, _PAIRS = 1, 2  # types of models


class Piece(NamedTuple):
    """One token. `type` is one of the six above."""

    text: str = ""
    score: float = 0.0
    type: int = _NORMAL


class Model(NamedTuple):
    """What of a .model decides how text is cut; fields and defaults as in its sentencepiece_model.proto."""

    pieces: tuple[Piece, ...]
    type: int = _UNIGRAM
    whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    unknown_surface: str = " \u2047 "
    charsmap: bytes = b""
    dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    denormalizer: bytes = b""


def read(data: bytes) -> Model:
    """Return the model that a .model file holds.

    Raises:
      ValueError: it holds something else.
    """
    try:
        return _model(data)
    except (AttributeError, TypeError, struct.error) as error:
        raise ValueError(f"a field is of another type ({error})") from None


def _model(data: bytes) -> Model:
    pieces = []
    trainer = normalizer = denormalizer = b""
    for number, value in _fields(data):
        if number == 1:
            fields = dict(_fields(value))
            (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
            pieces.append(Piece(fields.get(1, b"").decode(), score, fields.get(3, _NORMAL)))
        elif number == 2:
            trainer = value
        elif number == 3:
            normalizer = value
        elif number == 5:
            denormalizer = value
    if not (pieces and trainer and normalizer):
        raise ValueError("it has no pieces, or does not say how they are used")
    trainer, normalizer = dict(_fields(trainer)), dict(_fields(normalizer))
    return Model(
        tuple(pieces),
        type=trainer.get(3, _UNIGRAM),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
        byte_fallback=bool(trainer.get(35, 0)),
        unknown_surface=trainer.get(44, " \u2047 ".encode()).decode(),
        charsmap=normalizer.get(2, b""),
        dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        denormalizer=dict(_fields(denormalizer)).get(2, b""),
    )


def convert(model: Model) -> tokenizers.Tokenizer:
    """Return the tokenizer of a model.

    Raises:
      ValueError: the model cuts text in a way that the tokenizers library cannot follow.
    """
    _check(model)
    texts = {kind: [piece.text for piece in model.pieces if piece.type == kind] for kind in range(1, 7)}
    inner = tokenizers.Tokenizer(_unigram(model) if model.type == _UNIGRAM else _pairs(model))
    inner.normalizer = normalizers.Sequence(list(_normalizers(model, texts[_USER])))
    if model.type == _UNIGRAM and model.byte_fallback:  # a text that spells a byte's piece does not get it
        inner.pre_tokenizer = pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous")
    steps = [decoders.Replace(Regex(_any(texts[_UNKNOWN])), model.unknown_surface)]
    if texts[_CONTROL]:
        steps.append(decoders.Replace(Regex(_any(texts[_CONTROL])), ""))
    steps += [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.dummy_prefix or model.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    inner.decoder = decoders.Sequence(steps)
    inner.add_special_tokens(texts[_UNKNOWN] + texts[_CONTROL])
    inner.add_tokens([AddedToken(text, special=False, normalized=True) for text in texts[_USER]])
    return inner


def _check(model: Model) -> None:
    unsupported = {
        "it is neither unigram nor bpe": model.type not in (_UNIGRAM, _PAIRS),
        "it has treat_whitespace_as_suffix": model.whitespace_as_suffix,
        "it has no escape_whitespaces": not model.escape_whitespaces,
        "it has a denormalizer": model.denormalizer,
        "it has unused pieces": any(piece.type == _UNUSED for piece in model.pieces),
        "its character map is cut short": is_cut_short(model.charsmap),
        "it has not one piece for what is unknown": sum(piece.type == _UNKNOWN for piece in model.pieces) != 1,
    }
    if found := [words for words, is_so in unsupported.items() if is_so]:
        raise ValueError(" and ".join(found))


def is_cut_short(charsmap: bytes) -> bool:
    """Say whether a character map claims more than it has; the tokenizers library would end the process over it."""
    return bool(charsmap) and int.from_bytes(charsmap[:4], "little") > len(charsmap) - 4


def _unigram(model: Model) -> models.Unigram:
    (unknown,) = (index for index, piece in enumerate(model.pieces) if piece.type == _UNKNOWN)
    return models.Unigram([(piece.text, piece.score) for piece in model.pieces], unknown, model.byte_fallback)


def _pairs(model: Model) -> models.BPE:
    """Return the merges that SentencePiece makes: any two pieces that together are one, the best of these first."""
    ids = {piece.text: index for index, piece in enumerate(model.pieces)}
    parts = {piece.text for piece in model.pieces if piece.type == _NORMAL}
    merges = sorted(
        (-piece.score, ids[piece.text[:cut]], ids[piece.text[cut:]], piece.text[:cut], piece.text[cut:])
        for piece in model.pieces
        if piece.type == _NORMAL
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in parts and piece.text[cut:] in parts
    )
    (unknown,) = (piece.text for piece in model.pieces if piece.type == _UNKNOWN)
    pairs = [(left, right) for *_, left, right in merges]
    return models.BPE(ids, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)


def _normalizers(model: Model, symbols: list[str]) -> Iterator[normalizers.Normalizer]:
    """Yield the steps from a text to pieces' letters; `symbols`, the user's own, are normalised by them too."""
    if model.charsmap:
        yield normalizers.Precompiled(model.charsmap)
    if model.remove_extra_whitespaces:
        yield normalizers.Replace(Regex(r"\A +| +\z"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if model.dummy_prefix and symbols:
        yield normalizers.Replace(Regex(rf"\A(?!{_any(symbols)})(?=[\s\S])"), SPACE)  # a text, but not a symbol alone
    elif model.dummy_prefix:
        yield normalizers.Prepend(SPACE)
    yield normalizers.Replace(" ", SPACE)


def _any(texts: list[str]) -> str:
    """Return the pattern of a whole text that is one of these."""
    return rf"\A(?:{'|'.join(map(re.escape, texts))})\z"


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protocol buffer: an int, or the bytes of anything longer."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind, value = tag & 7, 0
        if kind in (0, 2):
            value, place = _varint(data, place)
        if kind != 0:
            length = {1: 8, 2: value, 5: 4}.get(kind, len(data))
            value, place = data[place : place + length], place + length
            if len(value) != length:
                raise ValueError("a field goes beyond the end")
        yield tag >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte, place = data[place], place + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number goes beyond the end")
