"""Prompts in; texts out that match a regular expression or obey a JSON schema, through llguidance.

Before every token the host says which may follow: all whose bytes can still become a match, and an end once the text
is one. The samplers choose among these. While the device reads a token, the host finds what may follow it.
"""

import json
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config.regex import translated
from lm.generate import decode
from lm.generate.method import Ready, See, Written
from lm.generate.sampling import read, write
from lm.refusal import Refusal, extra
from lm.text.spelling import spelling
from lm.text.tokenizer import Tokenizer

_SPACES = r"[\x20\x09\x0A\x0D]{1,64}"  # where JSON may have some: enough to indent, and an end to it
_HEAD = '%llguidance {"no_forcing": true}\n'  # of two tokens that can go on, both may, though but one text can
_STUCK = "NoExtensionBias"  # what llguidance says where no token goes on
_LARGEST = 1 << 20  # bytes of a schema's file


def constrained(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return `section.sequences` texts of every prompt, those of one prompt side by side, `complete` in their numbers.

    complete: 1 where the whole text matches, else 0: it came to section.max_new_tokens or to a stop string before, or
    none of the tokens that the samplers leave goes on, and so it ended.

    Raises:
      Refusal: llguidance is not there or cannot follow the pattern, or no token begins what matches.
    """
    guide = _Guide(ready, prompts, section)
    extend = partial(guide.extend, ready.model, ready.params)
    written = write(ready, prompts, section, see, partial(read, ready, ready.model.config.context), extend)
    is_whole = lambda index: guide.is_complete(index) and written[index].finish_reason != "stop_string"
    return [one._replace(numbers={"complete": float(is_whole(index))}) for index, one in enumerate(written)]


class _Guide:
    """What of each text has been read, and what may follow."""

    def __init__(self, ready: Ready, prompts: list[list[int]], section: Any):
        library = extra("llguidance", "constrain", "sample.regex and sample.json_schema are obeyed by llguidance")
        tokenizer = ready.tokenizer
        words, is_led = _words(tokenizer, ready.model.config.vocabulary)
        self._what = f"sample.regex is {section.regex!r}" if section.regex else "sample.json_schema"
        rule = f"/{translated(section.regex)}/" if section.regex else f"%json {_schema(section.json_schema)}"
        self._ends = tokenizer.ends
        self._matchers = []
        for prompt in prompts:
            is_first = is_led and (ready.is_answering or not tokenizer.decode(prompt))
            grammar = f'{_HEAD}start: {"LEAD " * is_first}rule\nrule: {rule}\nLEAD: " "\n'
            matcher = library.LLMatcher(words, grammar, log_level=0)
            self._matchers += [matcher, *(matcher.deep_copy() for _ in range(section.sequences - 1))]
        self._allowed = self._find()
        if any(matcher.is_error() for matcher in self._matchers):
            raise Refusal(f"{self._what}: the tokenizer {tokenizer.kind!r} has no token that begins what matches.")

    def extend(self, model, params, reading: decode.Reading, keys, settings, count) -> decode.Reading:
        """Add a token to every row that is not over, as decode.extend does."""
        is_over = np.array(reading.is_over)
        tokens_B = _drawn(reading, keys, settings, self._allowed)
        reading = _append(model, params, reading, tokens_B, settings)
        for matcher, token, is_done in zip(self._matchers, np.asarray(tokens_B).tolist(), is_over, strict=True):
            if not is_done and token not in self._ends:
                matcher.consume_token(token)
        self._allowed = self._find()
        return reading

    def is_complete(self, index: int) -> bool:
        """Say whether the tokens of a text match."""
        return self._matchers[index].is_accepting()

    def _find(self) -> np.ndarray:
        """Return bits of the ids that may follow each text, uint8 `(B, V / 8)`, the lowest first."""
        found = [np.frombuffer(matcher.compute_bitmask(), np.uint8) for matcher in self._matchers]
        for matcher in self._matchers:
            if matcher.is_error() and not matcher.get_error().startswith(_STUCK):
                raise Refusal(f"{self._what}: llguidance cannot follow it ({_reason(matcher.get_error())}).")
        return np.stack(found)


@jax.jit
def _drawn(reading: decode.Reading, keys, settings, allowed_BW):
    """Return a token per row that is allowed; where nothing that is allowed is left, an end."""
    allowed_BV = jnp.unpackbits(allowed_BW, axis=1, count=reading.logits.shape[1], bitorder="little")
    logits_BV = jnp.where(allowed_BV > 0, reading.logits, -jnp.inf)
    return decode.drawn(reading._replace(logits=logits_BV), keys, settings)


_append = jax.jit(decode.append, static_argnums=0, donate_argnames="reading")


class _Words:
    """A vocabulary as llguidance asks for one. Nothing is forced, so that it has no text to cut."""

    def __init__(self, tokens: list[bytes], special: list[int], end: int):
        self.tokens, self.special_token_ids, self.eos_token_id, self.bos_token_id = tokens, special, end, None

    def __call__(self, text: str) -> list[int]:
        raise NotImplementedError


@lru_cache(maxsize=2)
def _words(tokenizer: Tokenizer, size: int) -> tuple[Any, bool]:
    """Return llguidance's tokenizer of `size` ids, and whether a text's first token loses its space."""
    library = extra("llguidance", "constrain", "sample.regex and sample.json_schema are obeyed by llguidance")
    tokens, is_led = spelling(tokenizer)
    tokens = [*tokens[:size], *[b""] * (size - len(tokens))]
    special = [index for index, token in enumerate(tokens) if not token]
    for index in tokenizer.ends:
        tokens[index] = f"<{index}>".encode()
    ends = sorted(tokenizer.ends)
    wrapped = library.TokenizerWrapper(_Words(tokens, special, tokenizer.end))
    return library.LLTokenizer(wrapped, n_vocab=size, eos_token=ends), is_led


def _schema(value: str) -> str:
    """Return the JSON text of a schema, given as it is or as its file."""
    text = value if value.lstrip().startswith("{") else _read(Path(value))
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"sample.json_schema is no JSON ({error}).") from None
    if not isinstance(schema, dict):
        raise Refusal('sample.json_schema is no JSON object: a schema is one, such as {"type": "object"}.')
    return json.dumps({"x-guidance": {"whitespace_pattern": _SPACES}} | schema)


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise Refusal(f"sample.json_schema {str(path)!r} has more than {_LARGEST:,} bytes.")
        return data.decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise Refusal(f"sample.json_schema is neither a JSON object nor a file: {str(path)!r} ({reason}).") from None


def _reason(error: str) -> str:
    """Return what llguidance says without the grammar that it shows."""
    text = re.split(r"\n(?: +\d+ \||<state>)", error)[0]
    return " ".join(re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", text).split())
