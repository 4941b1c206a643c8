"""Scanned or unrolled, recomputed or not: the same numbers from another program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.transformer import Transformer


def _program(tiny, random_params, **overrides):
    """Return the lowered gradient of a loss, and its value and gradients."""
    model = Transformer(tiny(model__family="llama", **overrides).model)
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 61, (2, 13))
    segments, positions = np.ones_like(ids), np.broadcast_to(np.arange(13), (2, 13))
    direction = generator.normal(size=(2, 13, 24)).astype(np.float32)

    def loss(params):
        return jnp.sum(model.apply({"params": params}, ids, positions, segments).hidden * direction)

    params = random_params(model)
    lowered = jax.jit(jax.value_and_grad(loss)).lower(params)
    return lowered.as_text(), lowered.compile()(params)


def _assert_same(one, other):
    (loss, gradient), (other_loss, other_gradient) = one, other
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    for leaf, other_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
        np.testing.assert_allclose(leaf, other_leaf, atol=1e-5 * float(np.abs(leaf).max()))


@pytest.fixture(scope="module")
def unrolled(tiny, random_params):
    return _program(tiny, random_params, model__unroll=3)


def test_scan_is_unroll(tiny, random_params, unrolled):
    text, values = _program(tiny, random_params, model__unroll=1)
    assert text.count("stablehlo.while") == 2 and unrolled[0].count("stablehlo.while") == 0
    _assert_same(values, unrolled[1])


def test_remat_computes_more_and_the_same(tiny, random_params, unrolled):
    products = [unrolled[0].count("stablehlo.dot_general")]
    for remat in ("dots", "full"):
        text, values = _program(tiny, random_params, model__unroll=3, model__remat=remat)
        products.append(text.count("stablehlo.dot_general"))
        _assert_same(values, unrolled[1])
    assert products[0] < products[1] < products[2]


def test_remat_in_a_scan(tiny, random_params, unrolled):
    text, values = _program(tiny, random_params, model__unroll=1, model__remat="full")
    assert text.count("stablehlo.while") == 2
    _assert_same(values, unrolled[1])
