"""Windows and an objective in; batch k = f(seed, k) out, this process's rows, a few steps ahead on the devices."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import jax
import numpy as np

from lm.batch import Batch
from lm.data.windows import Window, Windows
from lm.growth import Growth
from lm.refusal import Refusal

Shape = Callable[[Window, tuple[int, int]], Batch]  # an objective's: (window, (seed, sample)) → row

_AHEAD = 2  # batches built and sent before they are asked for


def train_rows(windows: Windows, shape: Shape, seed: int) -> Callable[[int], Batch]:
    """Return sample → row: sample s is window s of an endless order that is shuffled anew in every epoch."""
    if windows.whole == 0:
        raise Refusal(
            f"the training split has {windows.split.tokens} tokens: "
            f"it must have more than model.context ({windows.context})."
        )
    order = grain.MapDataset.range(windows.whole).seed(seed).shuffle().repeat(None)
    return lambda sample: shape(windows.window(int(order[sample])), (seed, sample))


def valid_rows(windows: Windows, shape: Shape, seed: int) -> Callable[[int], Batch]:
    """Return sample → row in the text's own order; samples beyond the last window are all padding."""
    return lambda sample: shape(windows.window(sample), (seed, sample))


def grown(rows: Callable[[int], Batch], growth: Growth) -> Callable[[int], Batch]:
    """Return what `batch` asks for while batches grow: k·whole + r → row r of batch k, no sample being skipped.

    Rows of micro-batches that take no part yet are padding.
    """
    padding = functools.cache(lambda: Batch(*map(np.zeros_like, rows(0))))

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
    length = len(next(iter(built.values())).inputs)

    def field(name: str) -> jax.Array:
        part = lambda index: np.stack([getattr(built[row], name) for row in range(*index[0].indices(size))])
        return jax.make_array_from_callback((size, length), sharding, part)

    return Batch(*map(field, Batch._fields))


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
