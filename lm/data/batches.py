"""Windows or pairs, and an objective in; batch k = f(seed, k) out, this process's rows, ahead on the devices."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import jax
import numpy as np

from lm.batch import Batch
from lm.data.mixture import interleave
from lm.data.pairs import Pair
from lm.data.store import Part
from lm.data.windows import Units, Window
from lm.growth import Growth
from lm.refusal import Refusal

Shape = Callable[[Window | Pair, tuple[int, int]], Batch]  # an objective's: (window or pair, (seed, sample)) → row

_AHEAD = 2  # batches built and sent before they are asked for


def train_rows(parts: Sequence[Part], units: Sequence[Units], shape: Shape, seed: int) -> Callable[[int], Batch]:
    """Return sample → row: an endless order, interleaved of every part's own, which is shuffled anew in every epoch."""
    for part, mine in zip(parts, units, strict=True):
        if part.weight and mine.plan.whole == 0:
            raise Refusal(
                f"the training split of {part.name!r} has {mine.split.tokens} tokens: "
                f"it must have more than {mine.context}, as a window takes; lower model.context."
            )
    orders = [
        grain.MapDataset.range(mine.plan.whole).seed(_seed(seed, part.name)).shuffle().repeat(None)
        if part.weight
        else None
        for part, mine in zip(parts, units, strict=True)
    ]
    place = interleave([part.weight for part in parts])

    def row(sample: int) -> Batch:
        part, number = place(sample)
        return shape(units[part].unit(int(orders[part][number])), (seed, sample))

    return row


def _seed(seed: int, name: str) -> int:
    """Return the seed of a part's order, which no other part enters."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def valid_batches(units: Sequence[Units], size: int) -> list[tuple[int, int]]:
    """Return (part, k) of the batches that hold every unit of every part once; none holds two parts' rows."""
    return [(part, k) for part, mine in enumerate(units) for k in range(-(-mine.plan.all // size))]


def valid_rows(units: Units, shape: Shape, seed: int) -> Callable[[int], Batch]:
    """Return sample → row in the part's own order; samples beyond the last unit are all padding."""
    made = lambda sample: shape(units.unit(sample), (seed, sample))
    padding = functools.cache(lambda: _padding(made(0))._replace(source=np.int32(units.source)))
    return lambda sample: made(sample) if sample < units.plan.all else padding()


def spread(units: Sequence[Units], shape: Shape, seed: int, count: int) -> Iterator[Batch]:
    """Yield the rows of at most so many windows or pairs, evenly spread over all parts' own order."""
    stops = np.cumsum([mine.plan.all for mine in units])
    for place in np.unique(np.linspace(0, stops[-1] - 1, min(count, stops[-1])).astype(int)).tolist():
        number = int(np.searchsorted(stops, place, "right"))
        sample = place - int(stops[number]) + units[number].plan.all
        yield valid_rows(units[number], shape, seed)(sample)


def _padding(row: Batch) -> Batch:
    """Return a row like this one that holds nothing."""
    return jax.tree.map(np.zeros_like, row)


def grown(rows: Callable[[int], Batch], growth: Growth) -> Callable[[int], Batch]:
    """Return what `batch` asks for while batches grow: k·whole + r → row r of batch k, no sample being skipped.

    Rows of micro-batches that take no part yet are padding.
    """
    padding = functools.cache(lambda: _padding(rows(0)))

    def row(place: int) -> Batch:
        sample = growth.sample(*divmod(place, growth.whole))
        return padding() if sample is None else rows(sample)

    return row


def batch(rows: Callable[[int], Batch], k: int, size: int, sharding: Any) -> Batch:
    """Return batch k, rows k·size to (k + 1)·size, as arrays laid over the devices.

    A process builds exactly the rows that its devices hold.
    """
    shards = {range(*index[0].indices(size)) for index in sharding.addressable_devices_indices_map((size,)).values()}
    built = {row: rows(k * size + row) for row in sorted({row for shard in shards for row in shard})}

    def field(*values: Any) -> jax.Array:
        of_row = dict(zip(built, values, strict=True))
        part = lambda index: np.stack([of_row[row] for row in range(*index[0].indices(size))])
        return jax.make_array_from_callback((size, *np.shape(values[0])), sharding, part)

    return jax.tree.map(field, *built.values())


def prefetched(make: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """Yield make(start) … make(stop − 1), made by a thread a few ahead of the consumer."""
    with ThreadPoolExecutor(1, "batches") as thread:
        pending = [thread.submit(make, k) for k in range(start, min(start + _AHEAD, stop))]
        try:
            for k in range(start, stop):
                if k + _AHEAD < stop:
                    pending.append(thread.submit(make, k + _AHEAD))
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
