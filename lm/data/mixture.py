"""Weights in; of which part sample s is, and its how manieth, out: exact shares, random access."""

import heapq
from collections.abc import Callable, Sequence

import numpy as np


def interleave(weights: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """Return sample → (part, number of the part's samples before it), for samples without end.

    After n samples each part has had ⌊n·share⌋ or ⌈n·share⌉, so any n consecutive ones hold n·share of it to
    within less than 2, and every cycle of sum(weights) samples holds exactly its weight.

    Sample j of a part (from 0) may come from ⌊j / share⌋ on and must be among the first ⌈(j + 1) / share⌉; of those
    that may, the most urgent comes. Giving each part its share of every place would keep all these times, so whole
    samples can keep them too (a flow of whole capacities has a whole solution), and the most urgent first then does
    (Jackson's rule): Tijdeman 1980, "The chairman assignment problem"; Baruah et al. 1996, "Proportionate progress".
    """
    parts, numbers = _cycle(weights)
    cycle = len(parts)

    def place(sample: int) -> tuple[int, int]:
        whole, rest = divmod(sample, cycle)
        part = int(parts[rest])
        return part, whole * weights[part] + int(numbers[rest])

    return place


def _cycle(weights: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return part and number of every sample of the first cycle."""
    cycle = sum(weights)
    jobs = [(j * cycle // weight, -(-(j + 1) * cycle // weight), part, j)
            for part, weight in enumerate(weights) for j in range(weight)]  # fmt: skip
    jobs.sort(reverse=True)
    found = np.empty((cycle, 2), np.int32)
    waiting: list[tuple[int, int, int]] = []
    for sample in range(cycle):
        while jobs and jobs[-1][0] <= sample:
            heapq.heappush(waiting, jobs.pop()[1:])
        found[sample] = heapq.heappop(waiting)[1:]
    return found[:, 0], found[:, 1]
