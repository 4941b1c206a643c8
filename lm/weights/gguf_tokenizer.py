"""The tokenizer.ggml entries of a GGUF file in, a tokenizer out; and back.

GGUF names a way to cut text (tokenizer.ggml.pre) where a tokenizer.json spells it. The names and patterns are those of
llama.cpp's llama-vocab.cpp; a name that is not known here is refused, since another cut gives other ids.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from lm.refusal import Refusal
from lm.text import sentencepiece
from lm.text.bounded import FILE, guarded
from lm.text.published import CONFIG
from lm.text.sentencepiece import SPACE, Model, Piece

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
_PAIRS = 2  # of SentencePiece's types of models
KEYS = "tokenizer.ggml."

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LAST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LAST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LAST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{{0}}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{{0}}"
_TEKKEN = _WORDS.replace("{0}", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LAST}"
_GPT4O = _WORDS.replace("{0}", f"{_CONTRACTIONS}?") + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LAST}"


class Cut(NamedTuple):
    """How byte-level pairs are cut. pattern: of a word, or GPT-2's. form: a normal form before it. whole: a word that
    is a token is not merged."""

    pattern: str = ""
    digits: bool = False
    form: str = ""
    whole: bool = False


CUTS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe"), Cut()),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "codeshell", "command-r", "exaone", "minerva-7b"), Cut(digits=True)
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), Cut(_LLAMA3, whole=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Cut(_LLAMA3)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo"), Cut(_QWEN2, form="NFC")),
    "stablelm2": Cut(_QWEN2),
    "tekken": Cut(_TEKKEN, whole=True),
    **dict.fromkeys(("gpt-4o", "llama4"), Cut(_GPT4O)),
}
_OPENED = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "tekken")  # texts of theirs begin with bos


class Found(NamedTuple):
    """files: name → text of those a Hugging Face folder has. generation: ids, as generation_config.json says them."""

    files: dict[str, str]
    generation: dict[str, int]


def read(path: Path, metadata: Mapping[str, Any], rows: int) -> Found | None:
    """Return the tokenizer that a file's metadata says; None where it has none.

    Args:
      path: of the file, for the sentences.
      metadata: as the scan has it.
      rows: of the embedding; no token may have a larger id.

    Raises:
      Refusal: it is of a kind, or is cut in a way, that is not known; or it is damaged.
    """
    said = {key.removeprefix(KEYS): value for key, value in metadata.items() if key.startswith(KEYS)}
    kind = said.get("model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in _KINDS:
        _refuse(path, f"its tokenizer is of the kind {str(kind)[:60]!r}; supported are {', '.join(_KINDS)}")
    tokens, types = said.get("tokens"), said.get("token_type")
    if not _is_texts(tokens) or not 0 < len(tokens) <= rows:
        _refuse(path, f"its tokens are not 1 to {rows} texts, as many as its embedding has rows")
    if len(set(tokens)) < len(tokens):
        _refuse(path, "two of its tokens are spelled alike")
    types = np.ones(len(tokens), int) if types is None else types
    if not isinstance(types, np.ndarray) or types.shape != (len(tokens),) or not np.isin(types, range(1, 7)).all():
        _refuse(path, "its token types are not those of its tokens")
    make = lambda: _KINDS[kind](path, said, tokens, types.tolist())
    inner = guarded(make, f"{path} cannot be opened: its tokenizer cannot be")
    ids = _ids(path, said, len(tokens))
    _frame(path, inner, said, ids)
    return Found({FILE: inner.to_str(), CONFIG: json.dumps(_config(metadata, inner, ids), indent=2)}, ids)


def _byte_pairs(path: Path, said: Mapping[str, Any], tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """Pairs of bytes, as GPT-2 has them."""
    name, merges = said.get("pre", "default"), said.get("merges", [])
    if name not in CUTS:
        _refuse(path, f"its text is cut by {str(name)[:60]!r}, which is not known; known are {', '.join(sorted(CUTS))}")
    pairs = [tuple(merge.split(" ")) for merge in merges] if _is_texts(merges) else [()]
    if any(len(pair) != 2 for pair in pairs):
        _refuse(path, "its merges are not pairs of texts")
    vocabulary = {token: index for index, token in enumerate(tokens) if types[index] != UNUSED}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=CUTS[name].whole))
    inner.normalizer, inner.pre_tokenizer = steps(CUTS[name])
    inner.decoder = decoders.ByteLevel()
    _add(inner, tokens, types)
    return inner


def steps(cut: Cut) -> tuple[normalizers.Normalizer | None, pre_tokenizers.PreTokenizer]:
    """Return what is done to a text before pairs are merged."""
    form = getattr(normalizers, cut.form)() if cut.form else None
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut.pattern)
    if cut.digits:
        return form, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), last])
    if cut.pattern:
        return form, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(cut.pattern), "isolated"), last])
    return form, last


def _pieces(path: Path, said: Mapping[str, Any], tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece's pairs, the best score first."""
    scores, charsmap = said.get("scores"), said.get("precompiled_charsmap", np.zeros(0, np.uint8))
    if not isinstance(scores, np.ndarray) or scores.shape != (len(tokens),) or not np.isfinite(scores).all():
        _refuse(path, "its scores are not those of its tokens")
    flags = [said.get("add_space_prefix", True), said.get("remove_extra_whitespaces", False)]
    if not all(isinstance(flag, bool) for flag in flags) or not isinstance(charsmap, np.ndarray):
        _refuse(path, "what it says of spaces is neither true nor false")
    own = lambda token, kind: token.replace(" ", SPACE) if kind == USER else token
    kinds = [CONTROL if kind == UNUSED else kind for kind in types]  # no text becomes one of them
    pieces = zip(tokens, scores.tolist(), kinds, strict=True)
    return sentencepiece.convert(
        Model(
            tuple(Piece(own(token, kind), score, kind) for token, score, kind in pieces),
            type=_PAIRS,
            byte_fallback=BYTE in types,
            charsmap=charsmap.astype(np.uint8).tobytes(),
            dummy_prefix=flags[0],
            remove_extra_whitespaces=flags[1],
        )
    )


_Kind = Callable[[Path, Mapping[str, Any], list[str], list[int]], tokenizers.Tokenizer]
_KINDS: dict[str, _Kind] = {"gpt2": _byte_pairs, "llama": _pieces}

IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "padding_token_id": "pad_token_id",
    "unknown_token_id": "unk_token_id",
    "seperator_token_id": "sep_token_id",
    "mask_token_id": "mask_token_id",
}


# Metadata → what tokenizer_config.json calls it.
SAID = {
    "tokenizer.chat_template": "chat_template",
    "tokenizer.ggml.add_bos_token": "add_bos_token",
    "tokenizer.ggml.add_eos_token": "add_eos_token",
}


def _frame(path: Path, inner: tokenizers.Tokenizer, said: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """Put before and behind a text what llama.cpp puts there; where a file does not say it, that is by its kind."""
    is_opened = said["model"] == "llama" or said.get("pre") in _OPENED
    flags = {"bos": said.get("add_bos_token", is_opened), "eos": said.get("add_eos_token", False)}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        _refuse(path, "what it says of add_bos_token or add_eos_token is neither true nor false")
    put = {name: ids[f"{name}_token_id"] for name, flag in flags.items() if flag and f"{name}_token_id" in ids}
    if put:
        named = [{"id": name, "ids": [i], "tokens": [inner.id_to_token(i) or ""]} for name, i in put.items()]
        single = [*(["bos"] if "bos" in put else []), "$A", *(["eos"] if "eos" in put else [])]
        inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=named)


def _ids(path: Path, said: Mapping[str, Any], size: int) -> dict[str, int]:
    found = {name: said[key] for key, name in IDS.items() if key in said}
    for name, index in found.items():
        if not _is_id(index, size):
            _refuse(path, f"its {name} is {index!r}, and it has {size} tokens")
    return found


def _config(metadata: Mapping[str, Any], inner: tokenizers.Tokenizer, ids: Mapping[str, int]) -> dict[str, Any]:
    """Return what tokenizer_config.json would say."""
    named = {name.removesuffix("_id"): inner.id_to_token(index) for name, index in ids.items()}
    said = {name: metadata[key] for key, name in SAID.items() if isinstance(metadata.get(key), str | bool)}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named, **said}


def _add(inner: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Tell the tokenizer which tokens are special, and which a text gets whole."""
    special = {CONTROL: True, UNKNOWN: True, USER: False}
    named = [(token, special[kind]) for token, kind in zip(tokens, types, strict=True) if kind in special]
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, is_so in named if is_so])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token, is_so in named if not is_so])


def _is_id(value: Any, size: int) -> bool:
    return type(value) is int and 0 <= value < size


def _is_texts(value: Any) -> bool:
    return isinstance(value, list)  # the scan makes lists of texts only


def _refuse(path: Path, why: str) -> Any:
    raise Refusal(f"{path} cannot be opened: {why}.")
