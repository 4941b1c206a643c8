"""Masks as matrices."""

import numpy as np

from lm.model import masks


def test_two_records_of_two_tokens():
    allowed = masks.allowed(masks.causal(np.array([[1, 1, 2, 2]])))
    expected = [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


def test_a_query_sees_the_slots_up_to_its_position():
    allowed = masks.allowed(masks.cached(np.array([[0, 1], [2, 3]]), 5))
    expected = [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


def test_padding_sees_itself():
    """Every query sees at least one key, so that no row of the softmax is empty."""
    assert np.asarray(masks.allowed(masks.causal(np.array([[1, 1, 0, 0, 0]])))).any(axis=2).all()
