"""Masks as matrices."""

import numpy as np
import pytest

from lm.model import masks


def test_two_records_of_two_tokens():
    allowed = masks.allowed(masks.packed(np.array([[1, 1, 2, 2]])))
    expected = [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


def test_a_query_sees_the_slots_up_to_its_position():
    allowed = masks.allowed(masks.cached(np.array([[0, 1], [2, 3]]), 5))
    expected = [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


def test_padding_sees_itself():
    """Every query sees at least one key, so that no row of the softmax is empty."""
    assert np.asarray(masks.allowed(masks.packed(np.array([[1, 1, 0, 0, 0]])))).any(axis=2).all()


def test_a_window_of_two():
    allowed = masks.allowed(masks.packed(np.ones((1, 4), int))._replace(window=2))
    expected = [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]
    np.testing.assert_array_equal(allowed, np.array(expected, bool))


@pytest.mark.parametrize("window", [1, 2, 3, 5, 13])
def test_a_query_sees_as_many_tokens_as_its_window(window):
    """Its own included, the nearest ones, and none of another record."""
    segments = np.array([[1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    allowed = np.asarray(masks.allowed(masks.packed(segments)._replace(window=window)))
    for t in range(11):
        first = max(0 if t < 7 else 7, t - window + 1)
        np.testing.assert_array_equal(np.flatnonzero(allowed[0, t]), np.arange(first, t + 1))
    positions = np.array([[4, 5], [9, 10]])
    cached = np.asarray(masks.allowed(masks.cached(positions, 13)._replace(window=window)))
    np.testing.assert_array_equal(cached.sum(2), np.minimum(positions + 1, window))
    assert cached[0, 0, 4] and cached[1, 1, 10]


def test_distance():
    np.testing.assert_array_equal(masks.distance(masks.packed(np.ones((2, 2), int))), [[[0, -1], [1, 0]]])
    np.testing.assert_array_equal(masks.distance(masks.cached(np.array([[3]]), 5)), [[[3, 2, 1, 0, -1]]])


def test_an_encoder_sees_all_of_a_record():
    allowed = masks.allowed(masks.packed(np.array([[1, 1, 2, 2, 0]]), is_causal=False))
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(allowed, np.array([expected], bool))


def test_an_encoders_window_reaches_to_both_sides():
    allowed = masks.allowed(masks.packed(np.ones((1, 4), int), is_causal=False)._replace(window=2))
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(allowed, np.array([expected], bool))


def test_a_prefix_is_seen_by_its_record():
    prefix = np.array([[1, 1, 0, 0, 1, 0]], bool)
    allowed = masks.allowed(masks.packed(np.array([[1, 1, 1, 1, 2, 2]]), prefix_BT=prefix))
    expected = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    np.testing.assert_array_equal(allowed, np.array([expected], bool))


def test_a_decoders_segment_sees_the_encoders():
    allowed = masks.allowed(masks.across(np.array([[1, 2, 0]]), np.array([[1, 1, 2, 0]])))
    np.testing.assert_array_equal(allowed, np.array([[[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]], bool))
