"""Learned positions by look-up; rotary ones as a product of complex numbers."""

import jax.numpy as jnp
import numpy as np

from lm.model.positions import Learned, rotate

POSITIONS = np.array([[0, 1, 2, 3, 11], [5, 0, 1, 12, 7]])


def test_learned_looks_up(tiny):
    section = tiny(model__width=24).model
    table = np.random.default_rng(0).normal(size=(13, 24)).astype(np.float32)
    out = Learned(section).apply({"params": {"embedding": jnp.asarray(table)}}, POSITIONS)
    np.testing.assert_array_equal(out, table[POSITIONS])


def test_rotary_is_a_product_of_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 6))
    frequencies = 100.0 ** (-2 * np.arange(3) / 6)
    turns = np.exp(1j * POSITIONS[:, :, None, None] * frequencies)
    turned = (x[..., :3] + 1j * x[..., 3:]) * turns
    out = rotate(jnp.asarray(x, jnp.float32), POSITIONS, 100.0)
    np.testing.assert_allclose(out, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


def test_rotary_scores_depend_on_distance_alone():
    query, key = np.random.default_rng(1).normal(size=(2, 1, 5, 3, 6)).astype(np.float32)
    places = np.arange(5)[None]
    scores = lambda shift: np.einsum(
        "bthc,bshc->bhts", rotate(query, places + shift, 50.0), rotate(key, places + shift, 50.0)
    )
    np.testing.assert_allclose(scores(0), scores(17), atol=1e-5)
    moved = np.einsum("bthc,bshc->bhts", rotate(query, places + 17, 50.0), rotate(key, places, 50.0))
    assert np.abs(moved - scores(0)).max() > 0.1


def test_rotary_keeps_dtype_and_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 1, 8)), jnp.bfloat16)
    far = np.array([[1000, 1001]])
    out = rotate(x, far, 10000.0)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out, rotate(x.astype(jnp.float32), far, 10000.0), atol=0.02)
