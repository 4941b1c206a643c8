"""Prompts in, texts out, token by token: the plain way to write."""

from typing import Any

import jax
import numpy as np

from lm.generate import decode, samplers, windowed
from lm.generate.method import Ready, See, Written, padded, rounded

_CHUNK = 8  # tokens added between two looks from the host


def sample(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return `section.sequences` texts of every prompt, those of one prompt side by side.

    A text that reaches the model's context goes on from the last half of it, read anew; what a decoder with an encoder
    says ends there. With a window see windowed.py.

    Raises:
      Refusal: the model cannot read in the window.
    """
    windowed.check(ready, section)
    ends = ready.tokenizer.ends
    most, sinks = (section.window, section.sinks) if section.window else (ready.model.config.context, 0)
    settings = samplers.settings(section, ready.tokenizer)
    copies = section.sequences
    keys = _keys(section.seed, np.tile(np.arange(copies), len(prompts)))
    rows = [prompt for prompt in prompts for _ in range(copies)]
    added: list[list[int]] = [[] for _ in rows]
    scores: list[list[float]] = [[] for _ in rows]
    reasons = [""] * len(rows)
    reading, seen = None, np.zeros(len(rows), np.int32)
    while "" in reasons:
        if reading is None and not any(added):
            if windowed.rolls(ready, max(map(len, prompts)), section):
                reading = windowed.read(ready, prompts, section, copies)
            else:
                texts = prompts if ready.is_answering else [cut(prompt, most, sinks) for prompt in prompts]
                reading = read(ready, texts, section.max_new_tokens, copies, most)
            seen = jax.device_get(reading.text.lengths)
            for index, token in enumerate(jax.device_get(decode.coming(reading, keys, settings)).tolist()):
                see(index, [token])  # as soon as it is there
        elif reading is None:
            texts = [cut(row + new, most, sinks) for row, new in zip(rows, added, strict=True)]
            seen = np.asarray([len(text) for text in texts], np.int32)
            reading = read(ready, texts, most, most=most)
            begun = seen - np.asarray([len(new) for new in added], np.int32)
            reading = reading._replace(text=reading.text._replace(begun=begun))
        reading = reading._replace(is_over=np.asarray([bool(reason) for reason in reasons]))
        reading = decode.extend(ready.model, ready.params, reading, keys, settings, _CHUNK)
        ids, lengths, logs = jax.device_get((reading.text.ids, reading.text.lengths, reading.scores))
        for index in [index for index, reason in enumerate(reasons) if not reason]:
            new = slice(seen[index], min(lengths[index], seen[index] + section.max_new_tokens - len(added[index])))
            added[index] += ids[index, new].tolist()
            scores[index] += logs[index, new].tolist()
            is_last = len(added[index]) >= section.max_new_tokens
            is_last |= ready.is_answering and lengths[index] == ids.shape[1]
            reasons[index] = ending(added[index], ends, see(index, added[index]), is_last)
        seen = lengths
        if any(length == ids.shape[1] and not reason for length, reason in zip(lengths, reasons, strict=True)):
            reading = None
    return [Written(*text) for text in zip(added, scores, reasons, strict=True)]


@jax.jit
def _keys(seed, numbers):
    """Return the key of each text, by its number among those of its prompt."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)


def ending(tokens: list[int], ends: frozenset[int], is_stopped: bool, is_last: bool) -> str:
    """Return why a text ends with its last token; nothing where it goes on."""
    if tokens[-1] in ends:
        return "stop"
    return "stop_string" if is_stopped else "length" if is_last else ""


def cut(ids: list[int], most: int, sinks: int = 0) -> list[int]:
    """Return ids of which there can be `most` with room for more: where they fill it, the first `sinks` and the last
    of them, together half as many.
    """
    return [*ids[:sinks], *ids[len(ids) - max(1, most // 2 - sinks) :]] if len(ids) >= most else ids


def read(ready: Ready, rows: list[list[int]], count: int, copies: int = 1, most: int = 0) -> decode.Reading:
    """Return the reading of prompts with room for `count` tokens, or as many as `most` slots hold, 0: the context."""
    most = most or ready.model.config.context
    longest = max(map(len, rows))
    slots = rounded((1 if ready.is_answering else longest) + count, most)
    return decode.prefill(
        ready.model,
        ready.params,
        *padded(rows, rounded(longest, most)),
        ready.tokenizer.specials.start,
        slots=slots,
        has_prefix=ready.has_prefix,
        copies=copies,
    )
