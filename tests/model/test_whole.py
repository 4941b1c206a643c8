"""Whole numbers of 8 bits, beside a quantiser in plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import whole
from lm.model.dense import times_rows


def by_hand(array):
    """Return the numbers and the scales, a vector at a time."""
    numbers, scales = np.zeros(array.shape, int), np.zeros(array.shape[:-1])
    for place in np.ndindex(*array.shape[:-1]):
        scales[place] = max(abs(float(value)) for value in array[place]) / 127
        for index, value in enumerate(array[place]):
            numbers[place][index] = round(float(value) / scales[place]) if scales[place] else 0
    return numbers, scales


@pytest.fixture(scope="module")
def array():
    """Vectors of all sizes: of zeros, of one number, and one with a number that stands out."""
    found = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    found[0, 0], found[0, 1], found[0, 2], found[1, 3, 2] = 0, 1e-30, -3e30, 100
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounded_is_the_nearest_of_255(array, dtype):
    array = np.asarray(jnp.asarray(array, dtype).astype("float32"))
    found = whole.rounded(jnp.asarray(array, dtype))
    numbers, scales = by_hand(array)
    assert (found.numbers.dtype, found.scale.dtype) == (np.int8, np.float32)
    np.testing.assert_array_equal(np.abs(found.numbers).max(axis=-1) == 127, scales > 0)
    assert (np.abs(np.asarray(found.numbers) - numbers) <= 0).mean() > 0.98  # a tie may fall to either side
    np.testing.assert_allclose(found.scale, scales, rtol=1e-6)
    error = np.abs(np.asarray(whole.restored(found, "float32")) - array)
    assert (error <= scales[..., None] * 0.5001).all()
    assert whole.restored(found, "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("count", [1, 3, 4, 13])
def test_a_product_loses_nothing_but_what_the_weights_have_lost(count):
    """x has 16 bits: each number is off by 2⁻¹⁶ of the row's largest at most; rows do not touch each other."""
    generator = np.random.default_rng(1)
    weights, x = generator.normal(size=(11, 523)), generator.normal(size=(count, 523))
    x[0, 5] = 50  # what stands out costs its row 8 bits of the rest
    held = whole.rounded(jnp.asarray(weights, jnp.float32))
    real = np.asarray(held.numbers, float) * np.asarray(held.scale, float)[:, None]
    found = np.asarray(times_rows(jnp.asarray(x, jnp.float32), held))
    assert found.shape == (count, 11) and found.dtype == np.float32
    bound = np.abs(x).max(axis=1, keepdims=True) / (127 * 508) * np.abs(real).sum(axis=1)[None]
    assert (np.abs(found - x @ real.T) <= bound * 1.01 + 1e-4).all()
    assert np.abs(found - x @ weights.T).max() < 2
    alone = np.asarray(times_rows(jnp.asarray(x[-1:], jnp.float32), held))
    np.testing.assert_array_equal(alone, found[-1:])
    nothing = times_rows(jnp.zeros((count, 523)), held)
    np.testing.assert_array_equal(nothing, np.zeros((count, 11)))


def test_the_product_is_of_whole_numbers(equations):
    """No weight becomes a real number on the way."""
    held = whole.rounded(jnp.ones((11, 523)))
    found = [equation for equation, _ in equations(whole.times, jnp.ones((1, 523)), held)]
    products = [equation for equation in found if equation.primitive.name == "dot_general"]
    assert products  # a form for each kind of machine
    for product in products:
        assert [str(argument.aval.dtype) for argument in product.invars] == ["int8", "int8"]
        assert str(product.outvars[0].aval.dtype) == "int32"
    reals = [out.aval for equation in found for out in equation.outvars if out.aval.dtype == np.float32]
    assert max(out.size for out in reals) < 11 * 523
