"""A tokenizer in, the tokenizer.ggml entries of a GGUF file out that gguf_tokenizer.py makes the same one of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from lm.refusal import Refusal
from lm.text.bounded import FILE
from lm.text.published import CONFIG, template
from lm.text.sentencepiece import SPACE
from lm.text.tokenizer import Tokenizer
from lm.weights import gguf_tokenizer
from lm.weights.gguf_tokenizer import BYTE, CONTROL, CUTS, IDS, KEYS, NORMAL, SAID, UNKNOWN, UNUSED, USER, steps

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
_ALL = lambda *steps: {"type": "Sequence", "normalizers": list(steps)}
_MARK = lambda scheme: {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}

# How a tokenizer.json says what SentencePiece does to spaces: normaliser, pre-tokenizer, whether a space is put first.
_SPACES = (
    (_ALL(_PREPEND, _REPLACE), None, True),
    (None, _MARK("first"), True),
    (None, _MARK("always"), True),
    (_REPLACE, None, False),
    (_ALL(_REPLACE), None, False),
    (_REPLACE, _SPLIT, False),
    (None, _MARK("never"), False),
)


def write(tokenizer: Tokenizer, ids: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return the entries of a tokenizer.

    Args:
      tokenizer: of pairs, byte-level or SentencePiece's.
      ids: config.json and generation_config.json as one.
      rows: of the embedding: each has a token in the file, if only a filler.

    Raises:
      Refusal: GGUF has no words for how it cuts text.
    """
    said = json.loads(tokenizer.to_json())
    model = said["model"]
    if model["type"] != "BPE" or tokenizer.size > rows:
        _refuse(tokenizer, f"it is of the kind {model['type']}, with {tokenizer.size} tokens for {rows} rows")
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [UNUSED] * rows
    for token, index in model["vocab"].items():
        is_byte = model["byte_fallback"] and len(token) == 6 and token.startswith("<0x")
        tokens[index], types[index] = token, BYTE if is_byte else NORMAL
    for added in said["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL if added["special"] else USER
    if model["unk_token"] is not None:
        types[model["vocab"][model["unk_token"]]] = UNKNOWN
    entries: dict[str, Any] = {"tokens": tokens, "token_type": types, **_ids(tokenizer, ids)}
    if model["byte_fallback"]:
        entries["scores"] = _scores(said, tokens)
        own = zip(tokens, types, strict=True)
        entries["tokens"] = [token.replace(SPACE, " ") if kind == USER else token for token, kind in own]
        entries |= {"model": "llama", "pre": "default"}
        entries["add_space_prefix"] = _puts_space_first(tokenizer, said, entries)
    else:
        entries |= _bytes(tokenizer, said)
    back = _back(entries)
    merges = lambda said: list(map(tuple, said["model"]["merges"]))
    special = lambda said: {token["content"]: token["special"] for token in said["added_tokens"]}
    is_kept = model["vocab"].items() <= back["model"]["vocab"].items()
    if merges(back) != merges(said) or not special(said).items() <= special(back).items() or not is_kept:
        _refuse(tokenizer, "its merges or tokens would come back as others")
    return {f"{KEYS}{key}": value for key, value in entries.items()} | _said(tokenizer)


def _bytes(tokenizer: Tokenizer, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the pairs of bytes are cut and merged."""
    theirs = *_steps(said), said["model"]["ignore_merges"]
    for name, cut in CUTS.items():
        inner = tokenizers.Tokenizer(models.BPE())
        inner.normalizer, inner.pre_tokenizer = steps(cut)
        if theirs == (*_steps(json.loads(inner.to_str())), cut.whole):
            return {"model": "gpt2", "pre": name, "merges": [" ".join(pair) for pair in said["model"]["merges"]]}
    return _refuse(tokenizer, "the pattern by which it cuts text has no name there")


def _steps(said: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what is done before merging; how offsets are counted changes no id."""
    cuts = said["pre_tokenizer"]
    for step in (cuts or {}).get("pretokenizers", [cuts]):
        if step and step["type"] == "ByteLevel":
            step.pop("trim_offsets", None)
    return said["normalizer"], cuts


def _puts_space_first(tokenizer: Tokenizer, said: Mapping[str, Any], entries: Mapping[str, Any]) -> bool:
    """Say whether a text gets a space before it, as SentencePiece's usually do."""
    for normalizer, cut, is_first in _SPACES:
        if (said["normalizer"], said["pre_tokenizer"]) == (normalizer, cut):
            return is_first
    for is_first in (True, False):  # with symbols of the user's it is said in ways of our own
        back = _back({**entries, "add_space_prefix": is_first})
        if (said["normalizer"], said["pre_tokenizer"]) == (back["normalizer"], back["pre_tokenizer"]):
            return is_first
    return _refuse(tokenizer, "what it does to spaces has no name there")


def _back(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer.json that the entries would be read as."""
    arrays = {key: np.array(entries[key]) for key in ("scores", "token_type") if key in entries}
    metadata = {f"{KEYS}{key}": value for key, value in {**entries, **arrays}.items()}
    return json.loads(gguf_tokenizer.read(Path("-"), metadata, len(entries["tokens"])).files[FILE])


def _scores(said: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Return a score for each token that orders the merges as they are."""
    first: dict[str, int] = {}
    for place, pair in enumerate(said["model"]["merges"]):
        first.setdefault("".join(pair), -place)
    return [float(first.get(token, 0)) for token in tokens]


def _ids(tokenizer: Tokenizer, ids: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids of special tokens; of several that end a text the first."""
    found = {key: ids.get(name) for key, name in IDS.items()}
    found = {key: value[0] if isinstance(value, list) and value else value for key, value in found.items()}
    given = {key: value for key, value in found.items() if type(value) is int and 0 <= value < tokenizer.size}
    return {"eos_token_id": tokenizer.end, **given, **dict(zip(["bos_token_id"], tokenizer.opening, strict=False))}


def _said(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what its tokenizer_config.json says that a GGUF file says too, and whether it frames a text."""
    said = json.loads(tokenizer.published.get(CONFIG, "{}"))
    said |= {"chat_template": template(tokenizer.published)}
    said |= dict(zip(("add_bos_token", "add_eos_token"), map(bool, tokenizer.frame), strict=True))
    return {key: said[name] for key, name in SAID.items() if isinstance(said.get(name), str | bool)}


def _refuse(tokenizer: Tokenizer, why: str) -> Any:
    raise Refusal(f"a GGUF file cannot hold the tokenizer {tokenizer.kind!r}: {why}.")
