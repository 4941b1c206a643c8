"""Numbers in, whole numbers of 8 bits and a scale for each vector of them out; back; and products with such weights."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from lm.model.product import by_rows

_MOST = 127


class Whole(NamedTuple):
    """numbers: int8 `(…, I)`, from -127 to 127. scale: float32 `(…)`, what a number of each vector stands for."""

    numbers: Any
    scale: Any


def rounded(array) -> Whole:
    """Return the array with each vector of its last axis rounded to 254ths of its range.

    Symmetric, by its largest magnitude ("absmax": Dettmers et al. 2022, arXiv 2208.07339, §2).
    """
    scale = jnp.max(jnp.abs(array.astype(jnp.float32)), axis=-1) / _MOST
    return Whole(jnp.round(_steps(array, scale)).astype(jnp.int8), scale)


def restored(whole: Whole, dtype):
    """Return what the whole numbers stand for."""
    return (whole.numbers.astype(jnp.float32) * whole.scale[..., None]).astype(dtype)


def times(x_NI, weights: Whole):
    """Return x · weightsᵀ in float32, `(N, O)`, of weights `(O, I)`, without ever making them real numbers.

    x is rounded to 16 bits: two rows of 8, of which the second is what the first leaves over, in 254ths of its step.
    That is as good as float32 beside what the weights have lost, and as few rows cost no more than one.
    """
    count = len(x_NI)
    coarse = rounded(x_NI)
    fine = _steps(x_NI, coarse.scale) - coarse.numbers.astype(jnp.float32)  # at most half a step
    fine = jnp.clip(jnp.round(fine * (2 * _MOST)), -_MOST, _MOST).astype(jnp.int8)
    sums = by_rows(jnp.concatenate([coarse.numbers, fine]), weights.numbers, jnp.int32).astype(jnp.float32)
    sums_NO = sums[:count] + sums[count:] / (2 * _MOST)
    return sums_NO * coarse.scale[:, None] * weights.scale[None]


def _steps(array, scale):
    """Return how many times each vector's scale its numbers are."""
    return array.astype(jnp.float32) / jnp.where(scale > 0, scale, 1)[..., None]
