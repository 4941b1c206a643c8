"""Products of a few rows, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.product import by_rows


@pytest.mark.parametrize("rows", [1, 2, 8, 131])
@pytest.mark.parametrize("outputs", [12, 9, 14, 11], ids=["quarters", "thirds", "halves", "prime"])
def test_any_shape(rows, outputs):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(rows, 37)).astype(np.float32), rng.normal(size=(outputs, 37)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(by_rows, static_argnums=2)(x, weights, "float32"), x @ weights.T, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 3, 131])
@pytest.mark.parametrize(("dtype", "sums"), [("bfloat16", "float32"), ("int8", "int32")])
def test_numbers_of_few_bits_are_summed_in_many(rows, dtype, sums):
    rng = np.random.default_rng(0)
    x, weights = (jnp.asarray(rng.integers(-99, 99, (size, 523)), dtype) for size in (rows, 7))
    found = by_rows(x, weights, sums)
    assert found.dtype == sums and found.shape == (rows, 7)
    np.testing.assert_array_equal(found, np.asarray(x, np.float64) @ np.asarray(weights, np.float64).T)


def test_each_row_is_as_it_is_alone():
    x, weights = jax.random.normal(jax.random.key(0), (5, 37)), jax.random.normal(jax.random.key(1), (12, 37))
    alone = np.concatenate([by_rows(row[None], weights, "float32") for row in x])
    np.testing.assert_allclose(by_rows(x, weights, "float32"), alone, atol=2e-5)
