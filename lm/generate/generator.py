"""A Bundle and prompts in; texts out, piece by piece where someone is watching."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.config.objective import has_prefix
from lm.generate import decode, samplers
from lm.refusal import Refusal
from lm.weights.place import Bundle

_CHUNK = 8  # tokens added between two looks from the host


class Completion(NamedTuple):
    """text: what follows the prompt. tokens, logprobs: its ids (with the end, if reached) and their natural logs.

    finish_reason: "stop" (end of text) or "length" (sample.max_new_tokens).
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str


def generate(
    bundle: Bundle, prompts: list[str], section: Any, watch: Callable[[int, str], None] | None = None
) -> list[Completion]:
    """Return `section.sequences` completions of every prompt, those of one prompt side by side.

    A text that reaches the model's context goes on from the last half of it, read anew. An encoder_decoder's encoder
    reads the prompt, once, closed by end-of-text, sentinels in it being those; what its decoder says is the text, and
    ends at the context at last.

    Args:
      bundle: the model.
      prompts: texts to continue, or to answer; an empty one begins a record.
      section: the sample section.
      watch: receives (index, new text) as it appears.

    Raises:
      Refusal: a prompt that leaves no room in the context; or the model is none that continues text.
    """
    encoder, context = bundle.tokenizer, bundle.model.config.context
    if bundle.model.config.architecture == "encoder" or bundle.model.config.head not in ("language", "masked"):
        raise Refusal(
            f"model.architecture is {bundle.model.config.architecture!r} and model.head {bundle.model.config.head!r}: "
            "text is continued by a decoder whose head gives logits of ids."
        )
    if encoder is None:
        raise Refusal("the model has no tokenizer, so it reads no prompt: put its tokenizer.json beside its config.")
    is_answer = bundle.model.config.architecture == "encoder_decoder"
    is_seen = has_prefix(bundle.config)
    is_marked = is_answer or bundle.config.objective.name in ("span", "mixture")
    rows: list[list[int]] = []
    for prompt in prompts:
        text = encoder.marked(prompt) if is_marked else encoder.encode(prompt).tolist()
        ids = [*encoder.opening, *text] or ([] if is_answer else [encoder.end])
        if len(ids) >= context:
            raise Refusal(f"the prompt has {len(ids)} tokens: it must have fewer than the model's context ({context}).")
        rows += [[*ids, encoder.end] if is_answer else list(ids) for _ in range(section.sequences)]
    asked = [() if is_answer else tuple(ids) for ids in rows]
    settings = samplers.Settings(section.temperature, section.top_k, section.top_p)
    key = jax.random.key(section.seed)
    added: list[list[int]] = [[] for _ in rows]
    scores: list[list[float]] = [[] for _ in rows]
    shown = [""] * len(rows)
    say = lambda ids, before: encoder.decode([i for i in ids if i not in encoder.ends], before)
    reading, room = None, 0
    done = 0
    while done < section.max_new_tokens and not all(_is_over(ids, encoder.ends) for ids in added):
        if room == 0 and is_answer and done:
            break
        if room == 0:
            if not is_answer:
                rows = [ids[-(context // 2) :] if len(ids) >= context else ids for ids in rows]
            longest = 1 if is_answer else max(map(len, rows))
            slots = _rounded(longest + section.max_new_tokens - done, context)
            start = encoder.specials.start
            padded = _padded(rows, context)
            reading = decode.prefill(bundle.model, bundle.params, *padded, start, is_seen, slots=slots)
            room = slots - longest
        count = _CHUNK if min(room, section.max_new_tokens - done) >= _CHUNK else 1
        reading, tokens, logs = decode.extend(bundle.model, settings, count, bundle.params, reading, key, done)
        tokens, logs = jax.device_get((tokens, logs))
        done, room = done + count, room - count
        for index, (new, log) in enumerate(zip(tokens.tolist(), logs.tolist(), strict=True)):
            rows[index] += new
            if not _is_over(added[index], encoder.ends):
                stop = next((place + 1 for place, one in enumerate(new) if one in encoder.ends), len(new))
                added[index] += new[:stop]
                scores[index] += log[:stop]
                if watch:
                    text = say(added[index], asked[index]).rstrip("\ufffd")  # until all bytes of it come
                    shown[index] = _show(index, text, shown[index], watch)
    texts = [say(ids, before) for ids, before in zip(added, asked, strict=True)]
    if watch:
        for index, text in enumerate(texts):
            _show(index, text, shown[index], watch)
    return [
        Completion(text, ids, logs, "stop" if _is_over(ids, encoder.ends) else "length")
        for text, ids, logs in zip(texts, added, scores, strict=True)
    ]


def _is_over(ids: list[int], ends: frozenset[int]) -> bool:
    return bool(ids) and ids[-1] in ends


def _padded(rows: list[list[int]], context: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids padded on the right, and lengths."""
    ids = np.zeros((len(rows), _rounded(max(map(len, rows)), context)), np.int32)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids, np.asarray([len(values) for values in rows], np.int32)


def _rounded(count: int, most: int) -> int:
    """Return a power of two from 16 on, so that few programs are compiled, but at most `most`."""
    return min(most, max(16, 1 << (count - 1).bit_length()))


def _show(index: int, text: str, shown: str, watch: Callable[[int, str], None]) -> str:
    """Pass on what is new in a text; return what has been shown of it."""
    if len(text) > len(shown):
        watch(index, text[len(shown) :])
        return text
    return shown
