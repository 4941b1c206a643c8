"""Prefix language modelling: where records are split, what is seen and what is scored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.objective.catalog import objective


@pytest.fixture(scope="module")
def goal(tiny, setting):
    """Return the objective of a model of 31 tokens."""
    config = tiny(objective__name="prefix", model__context=31)
    return objective(config.objective, setting(config.model))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), sample=st.integers(0, 10**9), is_full=st.booleans())
def test_what_is_seen_is_not_scored_and_the_rest_is(goal, random_window, seed, sample, is_full):
    assert goal.length(31) == 31
    window = random_window(32, seed, is_full)
    row = goal.shape(window, (seed, sample))
    np.testing.assert_array_equal(row.inputs, window.ids[:-1])
    np.testing.assert_array_equal(row.targets, window.ids[1:])
    for number in range(1, window.segments.max() + 1):
        here = np.flatnonzero(row.segments == number)
        seen = row.prefix[here]
        assert not len(here) or (seen[0] and not (np.diff(seen.astype(int)) > 0).any())
        for place, is_last in zip(here, seen.astype(int) - np.append(seen[1:], 0), strict=True):
            is_scored = window.is_scored[place + 1] and (is_last or not row.prefix[place])
            assert row.weights[place] == is_scored
    assert not row.prefix[row.segments == 0].any()
    again = goal.shape(window, (seed, sample))
    np.testing.assert_array_equal(row.prefix, again.prefix)


def test_all_splits_are_equally_likely(goal, random_window):
    window = random_window(32)._replace(segments=np.ones(32, np.int32), positions=np.arange(32, dtype=np.int32))
    seen = [int(goal.shape(window, (0, sample)).prefix.sum()) for sample in range(6200)]
    assert set(seen) == set(range(1, 32))
    np.testing.assert_allclose(np.bincount(seen)[1:], 200, atol=60)
