"""A split of pairs in; each pair's input and target, random access, out."""

from typing import Any, NamedTuple

import numpy as np

from lm.data.packing import Plan
from lm.data.store import Split

_PERCENTILES = 50, 99, 100


class Pair(NamedTuple):
    """Two texts, int32 ids of any length without an end-of-text. source: which part of the mixture they are from."""

    input_ids: np.ndarray
    target_ids: np.ndarray
    source: int


class Pairs(NamedTuple):
    """The pairs of a split of one part of the mixture, each of them one row."""

    split: Split
    plan: Plan
    source: int

    def unit(self, index: int) -> Pair:
        """Return pair `index`."""
        texts = [self.split.read(np.arange(start + 1, stop)) for start, stop in self.plan.stretches(index).T]
        return Pair(*texts, self.source)

    def numbers(self) -> dict[str, Any]:
        """Return how many there are, and of their lengths in tokens the median, the 99th percentile and the longest."""
        lengths = np.diff(self.split.offsets, append=self.split.tokens - 1) - 1
        found = {"pairs": self.plan.whole}
        for name, some in (("input_tokens", lengths[0::2]), ("target_tokens", lengths[1::2])):
            found[name] = np.percentile(some, _PERCENTILES, method="inverted_cdf").astype(int).tolist()
        return found


def pairs(split: Split, source: int) -> Pairs:
    """Return the pairs of a split, all of them in an epoch; the stretches of one are its input and its target."""
    offsets, count = split.offsets, len(split.offsets) // 2

    def stretches(index: int) -> np.ndarray:
        stop = offsets[2 * index + 2] if index + 1 < count else split.tokens - 1
        return np.array([offsets[2 * index : 2 * index + 2], [offsets[2 * index + 1], stop]])

    return Pairs(split, Plan(count, count, stretches), source)
