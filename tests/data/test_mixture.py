"""The interleave of a mixture: exact shares over any stretch and every cycle, the same from anywhere."""

import random
from fractions import Fraction

import numpy as np
import pytest

from lm.data.mixture import interleave

CHANCE = random.Random(7)
WEIGHTS = [
    [1],
    [1, 1],
    [2, 3],
    [0, 3, 0, 4],
    [1] * 17,
    [1] * 31 + [997],  # many rare ones come due together
    [997] + [1] * 31,
    [34, 33, 32, 1],
    [50, 499, 499, 1],
    *([CHANCE.randint(0, 40) for _ in range(count)] + [1] for count in (2, 3, 5, 7, 11, 13)),
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_shares_are_exact(weights):
    place, cycle = interleave(weights), sum(weights)
    count = 2 * cycle + 3
    parts = np.array([place(sample)[0] for sample in range(count)])
    had = np.zeros((count + 1, len(weights)))
    had[np.arange(1, count + 1), parts] = 1
    had = had.cumsum(0)
    assert had[cycle].tolist() == weights and had[2 * cycle].tolist() == [2 * weight for weight in weights]
    missed = had - np.arange(count + 1)[:, None] * (np.array(weights) / cycle)
    assert np.abs(missed).max() < 1
    assert (missed.max(0) - missed.min(0)).max() < 2  # of any stretch: its end less its beginning


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_a_part_gives_its_samples_in_order_each_once(weights):
    place = interleave(weights)
    placed = [place(sample) for sample in range(2 * sum(weights) + 3)]
    for part in range(len(weights)):
        numbers = [number for owner, number in placed if owner == part]
        assert numbers == list(range(len(numbers)))


def test_nothing_drifts_and_every_sample_is_random_access():
    weights = [30_000, 9_167, 700, 133]
    place, cycle = interleave(weights), sum(weights)
    assert [place(sample) for sample in (57, 3, cycle + 3)] == [place(57), place(3), place(cycle + 3)]
    for start in (10**7, 10**12 + 7, 2**53):
        seen = [place(sample) for sample in range(start, start + 211)]
        for part, weight in enumerate(weights):
            first = next((number for owner, number in seen if owner == part), None)
            if first is not None:
                before = sum(owner != part for owner, _ in seen[: [owner for owner, _ in seen].index(part)])
                assert abs(first - (start + before) * Fraction(weight, cycle)) < 1
