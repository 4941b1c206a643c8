"""A window in; its records with spans cut out, sentinels in their places, and the spans themselves, out.

The arithmetic is that of T5 (Raffel et al. 2020, arXiv 1910.10683, §3.1.4 and §3.3.4), as its own code has it
(t5.data.preprocessors: random_spans_helper and random_spans_noise_mask), of each record by itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lm.objective.pairs import Task
from lm.text.tokenizer import Specials

_FINE = 1 << 20  # steps of a share that is drawn: few enough that sums with it are exact


class Noise(NamedTuple):
    """How much of a text is cut out. rate: share of its tokens. length: mean of a span's; 0: one span, at the end."""

    rate: float
    length: float


def counts(tokens: int, noise: Noise) -> tuple[int, int]:
    """Return how many tokens of a text are noise, and in how many spans."""
    noisy = min(max(round(tokens * noise.rate), 1), tokens - 1)
    return noisy, _spans(noisy, noise)


def _spans(noisy: int, noise: Noise) -> int:
    return max(1, round(noisy / noise.length)) if noise.length else 1


def most(fits: Callable[[int], bool]) -> int:
    """Return the largest number of tokens, from 2 on, up to which all fit."""
    tokens = 2
    while fits(tokens + 1):
        tokens += 1
    return tokens


def corrupted(
    window, noise: Noise, generator: np.random.Generator, specials: Specials, room: Callable[[Sequence[Task]], int]
) -> list[Task]:
    """Return a task for each segment of the window that has text; what does not fit is left out, from the end on.

    A window of one record fits exactly. Of several, each has its share of the noise, rounded so that the sum is the
    window's; a span never crosses from one into another. End-of-text is never cut out.

    Args:
      window: of tokens.
      noise: how much is cut out.
      generator: for where.
      specials: ids.
      room: tasks → how many more tokens a row holds; below 0: they do not fit.
    """
    stop = int(np.count_nonzero(window.segments))
    while True:
        tasks = _tasks(window.ids[:stop], window.segments[:stop], noise, generator, specials)
        left = -1 if tasks is None else room(tasks)
        if left >= 0:
            return _closed(tasks, left, specials.end)
        stop = max(0, stop - max(1, -left))


def _closed(tasks: list[Task], room: int, end: int) -> list[Task]:
    """Return the tasks, the first `room` of those in which something is wanted closed by end-of-text."""
    order = np.cumsum([len(task.wanted) > 0 for task in tasks])
    return [
        task._replace(wanted=np.append(task.wanted, np.int32(end))) if len(task.wanted) and place <= room else task
        for task, place in zip(tasks, order.tolist(), strict=True)
    ]


def _tasks(ids, segments, noise: Noise, generator, specials: Specials) -> list[Task] | None:
    """Return the tasks, or None where one of them needs more sentinels than there are."""
    pieces = _pieces(ids, segments, specials)
    sizes = np.array([stop - start for start, stop in pieces], int)
    noisy = _shares(sizes, noise, generator)
    tasks: dict[int, tuple[list, list, list]] = {}
    for (start, stop), some in zip(pieces, noisy, strict=True):
        given, wanted, used = tasks.setdefault(int(segments[start]), ([], [], []))
        if given:
            given.append([specials.end])  # between two records of one segment
        text = ids[start:stop]
        for kept, cut in _cuts(len(text), int(some), noise, generator, len(pieces) == 1):
            given.append(text[kept])
            if cut.start < cut.stop:
                if len(used) == len(specials.sentinels):
                    return None
                sentinel = [specials.sentinels[len(used)]]
                used.append(sentinel)
                given.append(sentinel)
                wanted += [sentinel, text[cut]]
    whole = lambda parts: np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)
    return [Task(whole(given), whole(wanted)) for given, wanted, _ in tasks.values()]


def _pieces(ids, segments, specials: Specials) -> list[tuple[int, int]]:
    """Return start and stop of each stretch of a segment without end-of-text."""
    is_text = ids != specials.end
    is_start = is_text & ~np.append(False, is_text[:-1] & (segments[1:] == segments[:-1]))[: len(ids)]
    is_stop = is_text & ~np.append(is_text[1:] & (segments[1:] == segments[:-1]), False)[: len(ids)]
    return list(zip(np.flatnonzero(is_start).tolist(), (np.flatnonzero(is_stop) + 1).tolist(), strict=True))


def _shares(sizes: np.ndarray, noise: Noise, generator: np.random.Generator) -> np.ndarray:
    """Return how many tokens of each text are noise: of one alone what `counts` says, of several in proportion.

    Where the parts are rounded is drawn, so that short texts have their turn. A text keeps at least one token.
    """
    total = int(sizes.sum())
    if total < 2:
        return np.zeros(len(sizes), int)
    parts = counts(total, noise)[0] * np.cumsum(sizes) / total + generator.integers(_FINE) / _FINE
    return np.minimum(np.diff(np.floor(parts), prepend=0).astype(int), sizes - 1)


def _cuts(
    tokens: int, noisy: int, noise: Noise, generator: np.random.Generator, is_alone: bool
) -> list[tuple[slice, slice]]:
    """Return (kept, cut out) in turns, all ways to have so many spans being equally likely.

    As published a text that is alone ends with a span. One of several may go on behind it: the single span of a short
    one would else always stand at its end.
    """
    nothing = slice(tokens, tokens)
    if not noisy:
        return [(slice(0, tokens), nothing)]
    spans = min(_spans(noisy, noise), tokens - noisy)
    if is_alone or not noise.length:
        kept = _segmented(tokens - noisy, spans, generator)
    else:
        kept = _segmented(tokens - noisy + 1, spans + 1, generator)[:-1]
    stops = np.cumsum(np.stack([kept, _segmented(noisy, spans, generator)], axis=1), dtype=int).tolist()
    slices = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
    return [*zip(slices[::2], slices[1::2], strict=True), (slice(stops[-1], tokens), nothing)]


def _segmented(items: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Return the sizes of so many parts, none empty, of a number of items, drawn evenly."""
    cuts = np.sort(generator.choice(items - 1, parts - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=items)
