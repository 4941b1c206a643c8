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
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(section.seed), number))(
        np.tile(np.arange(copies), len(prompts))
    )
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
                texts = prompts if ready.is_answering else [windowed.cut(prompt, most, sinks) for prompt in prompts]
                reading = _read(ready, texts, section.max_new_tokens, most, copies)
            seen = jax.device_get(reading.text.lengths)
        elif reading is None:
            texts = [windowed.cut(row + new, most, sinks) for row, new in zip(rows, added, strict=True)]
            seen = np.asarray([len(text) for text in texts], np.int32)
            reading = _read(ready, texts, most, most)
            begun = seen - np.asarray([len(new) for new in added], np.int32)
            reading = reading._replace(text=reading.text._replace(begun=begun))
        reading = reading._replace(is_over=np.asarray([bool(reason) for reason in reasons]))
        count = _CHUNK if any(added) else 1  # the first as soon as it is there
        reading = decode.extend(ready.model, ready.params, reading, keys, settings, count)
        ids, lengths, logs = jax.device_get((reading.text.ids, reading.text.lengths, reading.scores))
        for index in [index for index, reason in enumerate(reasons) if not reason]:
            new = slice(seen[index], min(lengths[index], seen[index] + section.max_new_tokens - len(added[index])))
            added[index] += ids[index, new].tolist()
            scores[index] += logs[index, new].tolist()
            is_last = len(added[index]) >= section.max_new_tokens
            is_last |= ready.is_answering and lengths[index] == ids.shape[1]
            reasons[index] = _reason(added[index], ends, see(index, added[index]), is_last)
        seen = lengths
        if any(length == ids.shape[1] and not reason for length, reason in zip(lengths, reasons, strict=True)):
            reading = None
    return [Written(*text) for text in zip(added, scores, reasons, strict=True)]


def _reason(tokens: list[int], ends: frozenset[int], is_stopped: bool, is_last: bool) -> str:
    """Return why a text ends with its last token; nothing where it goes on."""
    if tokens[-1] in ends:
        return "stop"
    return "stop_string" if is_stopped else "length" if is_last else ""


def _read(ready: Ready, rows: list[list[int]], count: int, most: int, copies: int = 1) -> decode.Reading:
    """Return the reading of prompts with room for `count` tokens, or as many as `most` slots hold."""
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
