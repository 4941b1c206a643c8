"""What a checkpoint says of how its texts are drawn, and what a command line says, in; the sample section out."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from lm.config import sample, schema
from lm.config.resolve import flatten
from lm.refusal import Refusal
from lm.text.tokenizer import Tokenizer
from lm.weights.published import spelled

FILE = "generation_config.json"
_SECTION = "sample."
_TOLD = 8  # names that a line lists
_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "min_new_tokens": "min_new_tokens",
    "max_new_tokens": "max_new_tokens",
    "stop_strings": "stop",
    "num_return_sequences": "sequences",
    "num_beams": "beams",
    "length_penalty": "length_penalty",
    "early_stopping": "early_stopping",
}
_EARLY = {True: "first", False: "likely", "never": "never"}
_SILENT = r"\w+_token_id|transformers_version|_from_model_config|do_sample|use_cache"  # read elsewhere, or no matter


def section(
    config: Any, tokenizer: Tokenizer | None, given: Mapping[str, Any], say: Callable[[str], None] = lambda words: None
) -> ml_collections.FrozenConfigDict:
    """Return the sample section: what is given; else what the run's config says; else generation_config.json.

    Args:
      config: the model's, resolved.
      tokenizer: the model's, which keeps the files that it was published with.
      given: dotted names of fields → values that the user wants.
      say: hears what of generation_config.json is passed over.

    Raises:
      Refusal: the fields do not go together.
    """
    usual = flatten(schema.defaults("sample"), _SECTION)
    own = flatten(config.sample, _SECTION)
    wanted = {name: value for name, value in own.items() if value != usual[name]} | dict(given)
    files = tokenizer.published if tokenizer else {}
    said, left = published(json.loads(files.get(FILE, "{}")))
    try:
        sample.check(usual | said | wanted)
    except Refusal as refusal:
        sample.check(usual | wanted)
        left, said = [*left, f"the rest, as {str(refusal).rstrip('.')}"], {}
    if left:
        say(f"{FILE}: passed over {', '.join(left[:_TOLD])}{', ...' if left[_TOLD:] else ''}")
    found = schema.defaults("sample")
    found.update({name.removeprefix(_SECTION): value for name, value in (usual | said | wanted).items()})
    return ml_collections.FrozenConfigDict(found)


def published(said: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a generation_config.json says by our fields' names, and what of it is passed over.

    Transformers draws at temperature 1 where only do_sample is said, and takes the likeliest token without it.
    """
    found = {f"{_SECTION}temperature": 1.0} if said.get("do_sample") is True else {}
    left = []
    for theirs, value in said.items():
        if value is None or re.fullmatch(_SILENT, theirs):
            continue
        if theirs not in _NAMES:
            left.append(theirs if theirs.isidentifier() else spelled(theirs))
            continue
        name = f"{_SECTION}{_NAMES[theirs]}"
        value = _ours(theirs, value)
        if value is None or schema.complaint(name, value):
            left.append(f"{theirs} ({spelled(said[theirs])})")
        else:
            found[name] = value
    if said.get("do_sample") is False:
        found[f"{_SECTION}temperature"] = 0.0
    return found, left


def _ours(theirs: str, value: Any) -> Any:
    """Return a value as our field spells it; None where it has none."""
    if theirs == "early_stopping":
        return _EARLY.get(value) if isinstance(value, bool | str) else None
    if theirs == "stop_strings":
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else None
    return value
