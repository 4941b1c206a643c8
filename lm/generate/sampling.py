"""Prompts in, texts out, token by token: the plain way to write."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from lm.generate import decode, samplers, windowed
from lm.generate.method import Ready, See, Written, padded, rounded

_CHUNK = 8  # tokens added between two looks from the host


def sample(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return `section.sequences` texts of every prompt, those of one prompt side by side.

    Raises:
      Refusal: the model cannot read in sample.window.
    """
    windowed.check(ready, section)
    extend = partial(decode.extend, ready.model, ready.params)
    begin = partial(read, ready, section.window or ready.model.config.context)
    if windowed.rolls(ready, section):
        begin = partial(windowed.read, ready, section)
    elif section.window:
        prompts = [cut(prompt, section.window, section.sinks) for prompt in prompts]
    return write(ready, prompts, section, see, begin, extend, decode.coming)


def write(
    ready: Ready,
    prompts: list[list[int]],
    section: Any,
    see: See,
    read: Callable,
    extend: Callable,
    coming: Callable = lambda *_: np.zeros(0, int),
) -> list[Written]:
    """Return the texts that grow as two functions say, side by side.

    A text that reaches the model's context, or the window, goes on from the last half of it, with a window from its
    sinks too, read anew; what a decoder with an encoder says ends there.

    Args:
      read: (rows of ids, tokens to come, copies, and where they are read anew the places at which what was added
        begins) → a decode.Reading, or what else has its text, scores and is_over.
      extend: (that, keys of the rows, samplers.Settings, count) → that with some `count` tokens more in every row.
      coming: (that, keys of the rows, samplers.Settings) → each row's next token, where it is known before.
    """
    ends, sinks = ready.tokenizer.ends, section.sinks if section.window else 0
    context = section.window or ready.model.config.context
    settings = samplers.settings(section, ready.tokenizer)
    copies = section.sequences
    keys = keys_of(section.seed, np.tile(np.arange(copies), len(prompts)))
    rows = [[*prompt] for prompt in prompts for _ in range(copies)]  # as they are read
    added: list[list[int]] = [[] for _ in rows]
    scores: list[list[float]] = [[] for _ in rows]
    reasons = [""] * len(rows)
    reading, seen = None, np.zeros(len(rows), np.int32)
    while "" in reasons:
        if reading is None and not any(added):
            reading = read(prompts, section.max_new_tokens, copies)
            seen = jax.device_get(reading.text.lengths)
            for index, token in enumerate(jax.device_get(coming(reading, keys, settings)).tolist()):
                see(index, [token])  # as soon as it is there
        elif reading is None:
            rows = [cut(row, context, sinks) for row in rows]
            seen = np.asarray([len(row) for row in rows], np.int32)
            begun = seen - np.asarray([len(new) for new in added], np.int32)
            reading = read(rows, context, 1, begun)
        reading = reading._replace(is_over=np.asarray([bool(reason) for reason in reasons]))
        left = section.max_new_tokens - min(len(new) for new, reason in zip(added, reasons, strict=True) if not reason)
        reading = extend(reading, keys, settings, min(_CHUNK, left))
        ids, lengths, logs = jax.device_get((reading.text.ids, reading.text.lengths, reading.scores))
        for index in [index for index, reason in enumerate(reasons) if not reason]:
            new = slice(seen[index], min(lengths[index], seen[index] + section.max_new_tokens - len(added[index])))
            text = added[index] + ids[index, new].tolist()
            until = stopped(partial(see, index), text, len(added[index]))
            scores[index] = (scores[index] + logs[index, new].tolist())[:until]
            rows[index] += text[len(added[index]) : until]
            added[index] = text[:until]
            is_last = len(text) >= section.max_new_tokens
            is_last |= ready.is_answering and lengths[index] == ids.shape[1]
            reasons[index] = ending(added[index], ends, until is not None, is_last)
        seen = lengths
        if any(length == ids.shape[1] and not reason for length, reason in zip(lengths, reasons, strict=True)):
            reading = None
    return [Written(*text) for text in zip(added, scores, reasons, strict=True)]


@jax.jit
def keys_of(seed, numbers):
    """Return the key of each text, by its number among those of its prompt."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)


def ending(tokens: list[int], ends: frozenset[int], is_stopped: bool, is_last: bool) -> str:
    """Return why a text ends with its last token; nothing where it goes on."""
    if is_stopped:
        return "stop_string"
    return "stop" if tokens[-1] in ends else "length" if is_last else ""


def stopped(see: Callable[[list[int]], bool], tokens: list[int], known: int) -> int | None:
    """Return how many of a text's tokens there are where a stop string is whole; None where there is none.

    see: says of tokens whether they have one; known: so many have none.
    """
    if not see(tokens):
        return None
    return next(count for count in range(known + 1, len(tokens) + 1) if see(tokens[:count]))


def cut(ids: list[int], context: int, sinks: int = 0) -> list[int]:
    """Return ids that leave room in the context: where they fill it, the first `sinks` and the last, half of it."""
    return [*ids[:sinks], *ids[len(ids) - max(1, context // 2 - sinks) :]] if len(ids) >= context else ids


def read(
    ready: Ready,
    context: int,
    rows: list[list[int]],
    count: int,
    copies: int = 1,
    begun: np.ndarray | None = None,
    ahead: int = 1,
) -> decode.Reading:
    """Return the reading of prompts with room for `count` tokens, or as many as the context holds.

    Args:
      copies: rows that go on from each prompt.
      begun: int32 `(B,)`, where in each row begins what was added, which may be before it; None: behind them.
      ahead: most tokens that a pass adds to what was read; where there is room, so many stand beyond the count.
    """
    longest = max(map(len, rows))
    if begun is None and not ready.is_answering:
        begun = np.asarray([len(row) for row in rows], np.int32)
    slots = rounded((1 if ready.is_answering else longest) + count + ahead - 1, context)
    return decode.prefill(
        ready.model,
        ready.params,
        *padded(rows, rounded(longest, context)),
        ready.tokenizer.specials.start,
        slots=slots,
        has_prefix=ready.has_prefix,
        begun=begun,
        copies=copies,
        ahead=ahead,
        cache_dtype=ready.cache_dtype,
    )
