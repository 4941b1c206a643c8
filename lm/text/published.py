"""A folder as Hugging Face publishes tokenizers in, a Tokenizer out; and back, its files as they were."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from lm.refusal import Refusal
from lm.text import learn
from lm.text.bounded import FILE, IDS, from_json, read_bytes
from lm.text.tokenizer import Tokenizer, special_tokens

KIND = "place"
CONFIG = "tokenizer_config.json"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # of special tokens
_TOKENS = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
_FILES = (FILE, CONFIG, _TOKENS, "added_tokens.json", TEMPLATE)
_PARTS = 1 << 20  # of a tokenizer_config.json


def read(folder: Path, generation: Mapping[str, Any]) -> Tokenizer | None:
    """Return the tokenizer of a folder, None where it has none; it keeps the files.

    Args:
      folder: with a tokenizer.json.
      generation: config.json and generation_config.json as one, of which the ids of special tokens matter.
    """
    if not (folder / FILE).is_file():
        return None
    files = {name: _text(folder / name) for name in _FILES if (folder / name).is_file()}
    return made(files, generation, str(folder / FILE))


def made(files: Mapping[str, str], generation: Mapping[str, Any], what: str) -> Tokenizer:
    """Return the tokenizer of files by their names, the text of a tokenizer.json among them; `what` is it called.

    Raises:
      Refusal: it is none, or nothing of it ends a text.
    """
    _check_config(files, what)
    inner = from_json(files[FILE].encode(), what)
    ends = _ends(inner, generation, what)
    end = inner.id_to_token(ends[0]) if ends else _called(inner, generation, what)
    learn.keep_unspelled(inner, what)
    return Tokenizer(inner, KIND, end, files, others=ends[1:], start=_start(inner, generation, what))


def _check_config(files: Mapping[str, str], what: str) -> None:
    """Refuse a tokenizer_config.json that is none."""
    text = files.get(CONFIG, "{}")
    try:
        is_object = text.count(",") <= _PARTS and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise Refusal(f"{CONFIG} beside {what} is no JSON object of at most {_PARTS:,} parts.")


def _text(path: Path) -> str:
    try:
        return read_bytes(path, str(path)).decode()
    except UnicodeDecodeError:
        raise Refusal(f"{path} is no UTF-8.") from None


def write(tokenizer: Tokenizer, folder: Path, ids: Mapping[str, Any]) -> None:
    """Write a tokenizer's files: those it was published as, or what ours says.

    ids: config.json and generation_config.json as one, which name special tokens by their ids.
    """
    files = {name: text for name, text in tokenizer.published.items() if name in _FILES} or {
        FILE: tokenizer.to_json(),
        CONFIG: json.dumps(_config(tokenizer, ids), indent=2, sort_keys=True),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _config(tokenizer: Tokenizer, ids: Mapping[str, Any]) -> dict[str, Any]:
    ids = {"mask_token_id": tokenizer.specials.mask, **ids}
    named = {f"{role}_token": ids.get(f"{role}_token_id") for role in _ROLES}
    spelled = {name: tokenizer.spelled(index) for name, index in named.items() if type(index) is int}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **spelled}


def template(files: Mapping[str, str]) -> str | None:
    """Return the chat template among files by their names: in a file of its own, or said in tokenizer_config.json."""
    said = json.loads(files.get(CONFIG, "{}")).get("chat_template")
    if isinstance(said, list):  # several, by their names
        said = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}.get("default")
    found = files.get(TEMPLATE, said)
    return found if isinstance(found, str) else None


def specials(files: Mapping[str, str]) -> dict[str, str]:
    """Return what files by their names call special tokens, such as `eos_token` → its spelling."""
    said = _map(files.get(_TOKENS, "{}")) | json.loads(files.get(CONFIG, "{}"))
    found = {name: said.get(name) for name in (f"{role}_token" for role in _ROLES)}
    found = {name: one.get("content") if isinstance(one, dict) else one for name, one in found.items()}
    return {name: spelling for name, spelling in found.items() if isinstance(spelling, str)}


def _map(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _ends(inner: tokenizers.Tokenizer, generation: Mapping[str, Any], what: str) -> list[int]:
    """Return the ids of tokens that are said to end a text: none where it is not said of the first."""
    said = generation.get("eos_token_id")
    ids = [index for index in (said if isinstance(said, list) else [said]) if type(index) is int]
    if any(index >= IDS for index in ids):
        raise Refusal(
            f"{what} has no token with the id {str(max(ids))[:30]}, which eos_token_id is: ids are below {IDS:,}."
        )
    known = [index for index in ids if index >= 0 and inner.id_to_token(index) is not None]
    return known if known[:1] == ids[:1] else []


def _start(inner: tokenizers.Tokenizer, generation: Mapping[str, Any], what: str) -> int | None:
    """Return the id of what a decoder with an encoder is said to read first; None where it is not said."""
    start = generation.get("decoder_start_token_id")
    if start is None or (type(start) is int and 0 <= start < IDS and inner.id_to_token(start) is not None):
        return start
    raise Refusal(f"{what} has no token {str(start)[:30]}, which decoder_start_token_id is.")


def _called(inner: tokenizers.Tokenizer, generation: Mapping[str, Any], what: str) -> str:
    """Return the spelling of the token that ends a text, as tokenizers call it."""
    names = special_tokens(inner)
    for name in learn.ENDS:
        if name in names:
            return name
    raise Refusal(f"{what} has no token that ends a text: eos_token_id is {generation.get('eos_token_id')!r}.")
