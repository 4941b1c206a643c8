"""The cache: one slot a position, or as many as a window takes."""

import jax
import numpy as np
import pytest

from lm.model import cache as caches


def test_empty(tiny):
    section = tiny(model__dtype="bfloat16").model
    cache = caches.empty(section, 5, 7)
    assert len(cache) == section.layers
    for leaf in (leaf for layer in cache for leaf in layer[:2]):
        assert leaf.shape == (5, section.kv_heads, 7, section.head_width)
        assert leaf.dtype == ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        assert not np.asarray(leaf).any()


@pytest.mark.parametrize(("ahead", "slots"), [(None, [40, 40, 40]), (1, [3, 40, 3]), (5, [7, 40, 7]), (99, [40] * 3)])
def test_layers_with_a_window_keep_what_it_takes(tiny, ahead, slots):
    section = tiny(model__layers=3, model__windows=(3, 0)).model
    assert [layer.slots for layer in caches.empty(section, 2, 40, ahead)] == slots


def _new(section, length):
    shape = (2, 2, length, section.kv_heads, section.head_width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_write_puts_at_positions_and_drops_what_is_beyond(tiny, dtype):
    section = tiny(model__dtype=dtype).model
    key, value = _new(section, 3)
    positions = np.array([[1, 2, 3], [5, 6, 7]])
    written = caches.write(caches.empty(section, 2, 7)[0], key, value, positions, is_rolling=False)
    for slots, new in zip(caches.read(written, "float32"), (key, value), strict=True):
        expected = np.zeros(slots.shape)
        expected[0, 1:4] = new[0]
        expected[1, 5:7] = new[1, :2]
        np.testing.assert_allclose(slots.astype("float32"), expected, rtol=1e-6 if dtype == "float32" else 4e-3)


def test_write_goes_round(tiny):
    section = tiny().model
    key, value = _new(section, 3)
    positions = np.array([[6, 7, 8], [12, 13, 14]])
    written = caches.write(caches.empty(section, 2, 7)[0], key, value, positions, is_rolling=True)
    for slots, new in zip(caches.read(written, "float32"), (key, value), strict=True):
        np.testing.assert_array_equal(slots[0, [6, 0, 1]], new[0])
        np.testing.assert_array_equal(slots[1, [5, 6, 0]], new[1])
        assert not np.asarray(slots[:, [2, 3, 4]]).any()


@pytest.mark.parametrize("slots", [4, 7, 9])
def test_begin_keeps_the_last_of_each_row(tiny, slots):
    """Rows of 7 and 5 tokens, of which padding must not take places."""
    section = tiny().model
    key, value = _new(section, 7)
    segments = np.array([[1] * 7, [1] * 5 + [0] * 2])
    begun = caches.begin(caches.empty(section, 2, slots)[0], key, value, segments)
    for found, new in zip(caches.read(begun, "float32"), (key, value), strict=True):
        for row, length in enumerate((7, 5)):
            for place in range(max(0, length - slots), length):
                np.testing.assert_array_equal(found[row, place % slots], new[row, place])


def test_whole_numbers_are_written_and_read(tiny):
    """A scale for every head and position: each is near what it was, however large others are."""
    section = tiny().model
    key, value = _new(section, 3)
    key[0, 1, 0] *= 1000
    positions, segments = np.array([[4, 5, 6], [7, 8, 9]]), np.ones((2, 3), int)
    layer = caches.empty(section, 2, 7, dtype="int8")[0]
    numbers = layer.key.numbers.size
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(layer)) == 2 * (numbers + 4 * numbers // section.head_width)
    begun = caches.begin(layer, key, value, segments)
    written = caches.write(layer, key, value, positions, is_rolling=True)
    for found, new in zip(caches.read(begun, "float32"), (key, value), strict=True):
        step = np.abs(new).max(axis=-1, keepdims=True) / 127
        assert (np.abs(np.asarray(found[:, :3]) - new) <= 0.501 * step).all() and not np.asarray(found[:, 3:]).any()
    for found, new in zip(caches.read(written, "bfloat16"), (key, value), strict=True):
        assert found.dtype == "bfloat16"
        step = np.abs(new).max(axis=-1, keepdims=True) / 127
        for row, places in enumerate(([4, 5, 6], [0, 1, 2])):
            assert (np.abs(np.asarray(found, np.float32)[row, places] - new[row]) <= 1.1 * step[row]).all()


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_long_beginning_keeps_its_last_in_any_dtype(tiny, dtype):
    section = tiny(model__dtype="bfloat16").model
    key, value = _new(section, 7)
    segments = np.array([[1] * 7, [1] * 5 + [0] * 2])
    begun = caches.begin(caches.empty(section, 2, 4, dtype=dtype)[0], key, value, segments)
    for found, new in zip(caches.read(begun, "float32"), (key, value), strict=True):
        for row, length in enumerate((7, 5)):
            for place in range(length - 4, length):
                np.testing.assert_allclose(found[row, place % 4], new[row, place], atol=0.02 if dtype == "int8" else 0)


def test_picked_rows_take_what_was_read_and_leave_what_an_encoder_read(tiny):
    section = tiny(model__layers=2).model
    key, value = (np.arange(3.0)[:, None, None, None] + cache for cache in caches.empty(section, 3, 5)[0][:2])
    layer = caches.Cache(key, value + 7, "keys", "values", "segments")
    for moved in caches.picked((layer, layer), np.array([2, 0, 0])):
        assert (moved.memory_key, moved.memory_value, moved.memory_segments) == ("keys", "values", "segments")
        np.testing.assert_array_equal(moved.key[:, 0, 0, 0], [2, 0, 0])
        np.testing.assert_array_equal(moved.value[:, 0, 0, 0], [9, 7, 7])
