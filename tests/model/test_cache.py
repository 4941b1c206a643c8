"""The cache: one slot a position."""

import jax
import numpy as np

from lm.model import cache as caches


def test_empty(tiny):
    section = tiny(model__dtype="bfloat16").model
    cache = caches.empty(section, 5, 7)
    for leaf in cache[:2]:
        assert leaf.shape == (section.layers, 5, 7, section.kv_heads, section.head_width)
        assert leaf.dtype == "bfloat16" and not np.asarray(leaf).any()


def test_write_puts_at_positions_and_drops_what_is_beyond(tiny):
    section = tiny().model
    layer = jax.tree.map(lambda leaf: leaf[0], caches.empty(section, 2, 7))
    key, value = np.random.default_rng(0).normal(size=(2, 2, 3, section.kv_heads, section.head_width))
    positions = np.array([[1, 2, 3], [5, 6, 7]])
    written = caches.write(layer, key.astype("float32"), value.astype("float32"), positions)
    for slots, new in zip(written[:2], (key, value), strict=True):
        expected = np.zeros(slots.shape)
        expected[0, 1:4] = new[0]
        expected[1, 5:7] = new[1, :2]
        np.testing.assert_allclose(slots, expected, rtol=1e-6)
