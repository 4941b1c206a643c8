"""Long documents in; every token scored once, by windows of a fixed length that move by fewer tokens than they hold."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.batch import Batch
from lm.data import batches
from lm.data.store import Part, Split
from lm.evaluate.heldout import Sums
from lm.objective import losses

_SHORTEST = 16  # places of a batch of short windows
_EVERY = 5.0  # seconds between two words about a long work


class Chunk(NamedTuple):
    """Windows that go through the model together: those of a part that have one length, padded.

    part: of the mixture. length: places of a row. count: of them scored in a row, at most.
    windows: (start, stop, first) `(rows, 3)`, as `windows` gives them.
    """

    part: int
    length: int
    count: int
    windows: np.ndarray


def windows(offsets: np.ndarray, tokens: int, context: int, stride: int) -> np.ndarray:
    """Return (start, stop, first) of every window `(windows, 3)`: it reads [start, stop) and scores what follows each
    of [first, stop); no window reads two records.

    The first window of a record scores all that it reads, every other one the `stride` tokens (or what is left) that
    the one before it did not reach. So each token is scored once, from at least context − stride tokens before the
    one that it follows, where the record has so many.
    """
    lengths = np.diff(offsets, append=tokens - 1)
    counts = 1 + -(-np.maximum(lengths - context, 0) // stride)
    owners = np.repeat(np.arange(len(offsets)), counts)
    moves = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = offsets[owners] + moves * stride
    stops = np.minimum(starts + context, (offsets + lengths)[owners])
    return np.stack([starts, stops, np.where(moves == 0, starts, starts + context - stride)], axis=1)


def chunks(parts: Sequence[Part], context: int, stride: int, size: int) -> list[Chunk]:
    """Return all windows of the validation split of every part, at most `size` of them together.

    Lengths are rounded up to powers of two, and a record's first window never goes with later ones, so that few
    programs are compiled and few places are padding.
    """
    found = []
    for number, part in enumerate(parts):
        mine = windows(part.valid.offsets, part.valid.tokens, context, stride)
        start, stop, first = mine.T
        powers = 2 ** np.ceil(np.log2(np.maximum(stop - start, _SHORTEST))).astype(int)
        kinds = np.stack([np.minimum(powers, context), first > start], axis=1)
        for length, is_later in np.unique(kinds, axis=0).tolist():
            alike = mine[(kinds == [length, is_later]).all(axis=1)]
            count = min(stride, length) if is_later else length
            found += [Chunk(number, length, count, alike[k : k + size]) for k in range(0, len(alike), size)]
    return found


def batch(split: Split, chunk: Chunk, size: int) -> Batch:
    """Return a chunk's windows as `size` rows; those that there are none for are padding."""
    rows = np.tile(np.array([0, -1, 0]), (size, 1))
    rows[: len(chunk.windows)] = chunk.windows
    start, stop, first = rows[:, :, None].swapaxes(0, 1)
    places = start + np.arange(chunk.length + 1)
    ids = np.zeros(places.shape, np.int32)
    ids[places <= stop] = split.read(places[places <= stop])
    places = places[:, :-1]
    is_read = places < stop
    return Batch(
        inputs=ids[:, :-1] * is_read,
        targets=ids[:, 1:] * is_read,
        weights=(is_read & (places >= first)).astype(np.float32),
        segments=is_read.astype(np.int32),
        positions=(np.arange(chunk.length) * is_read).astype(np.int32),
        source=np.full(size, chunk.part, np.int32),
    )


def scorer(forward: Callable[..., Any], section: Any, logits: losses.Logits, usual: int) -> Callable[..., Sums]:
    """Return (params, (count, batch)) → Sums of each row, of its `count` weightiest targets: the others need no logits.

    Args:
      forward: (params, batch, key) → Output.
      section: config.objective.
      logits: how the model's come about.
      usual: the most frequent target.
    """

    def score(count: int, params: Any, batch: Batch) -> Sums:
        few = count if count < batch.targets.shape[1] else None
        _, _, rows = losses.loss(section, logits, few)(forward, params, batch, None)
        return Sums(rows.nats, rows.weights, rows.correct, jnp.sum(batch.weights * (batch.targets == usual), axis=1))

    compiled = jax.jit(score, static_argnums=0)
    return lambda params, counted: compiled(counted[0], params, counted[1])


def rows(
    parts: Sequence[Part], context: int, stride: int, size: int, say: Callable[[str], None]
) -> Iterator[tuple[int, tuple[int, Batch]]]:
    """Yield (part, (count, Batch)) of all chunks, made ahead; `say` hears every few seconds how far it is."""
    work = chunks(parts, context, stride, size)

    def made(number: int) -> tuple[int, tuple[int, Batch]]:
        chunk = work[number]
        return chunk.part, (chunk.count, batch(parts[chunk.part].valid, chunk, size))

    costs = np.cumsum([chunk.length * size for chunk in work])
    say(f"{sum(len(chunk.windows) for chunk in work):,} windows in {len(work):,} batches")
    begun = said = time.monotonic()
    for item, done in zip(batches.prefetched(made, 0, len(work)), costs.tolist(), strict=True):
        yield item
        now = time.monotonic()
        if now - said >= _EVERY:
            said, left = now, int((now - begun) * (costs[-1] - done) / done)
            say(f"{done / costs[-1]:.0%} of {costs[-1]:,} tokens read, {left // 60}:{left % 60:02d} left")
