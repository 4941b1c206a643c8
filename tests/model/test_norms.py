"""Norms against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.norms import NORMS


def _layer(x, scale, bias, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * scale + bias


def _rms(x, scale, bias, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


FORMULAS = {"layer": _layer, "rms": _rms}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("has_offset", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_formula(tiny, name, has_bias, has_offset):
    options = {"model__norm": name, "model__bias": has_bias, "model__unit_offset": has_offset}
    section = tiny(**options, model__norm_epsilon=0.3).model
    generator = np.random.default_rng(0)
    x = generator.normal(2, 3, size=(2, 5, 24))
    params = {"scale": generator.normal(1, 0.5, size=24)}
    if name == "layer" and has_bias:
        params["bias"] = generator.normal(size=24)
    expected = FORMULAS[name](x, params["scale"] + has_offset, params.get("bias", 0), 0.3)
    params = {key: jnp.asarray(value, jnp.float32) for key, value in params.items()}
    out = NORMS[name](section).apply({"params": params}, x.astype(np.float32))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("has_offset", [True, False])
def test_scales_by_one_at_first(tiny, name, has_offset):
    section = tiny(model__norm=name, model__unit_offset=has_offset).model
    x = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)
    out, variables = NORMS[name](section).init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(out, FORMULAS[name](x, 1, 0, 1e-5), atol=1e-5)
    np.testing.assert_array_equal(variables["params"]["scale"], 0.0 if has_offset else 1.0)


@pytest.mark.parametrize("name", NORMS)
def test_computed_in_norm_dtype(tiny, name):
    x = jnp.asarray(np.random.default_rng(0).normal(5, 1, size=(2, 5, 24)), jnp.bfloat16)
    params = {"scale": jnp.ones(24)} | ({"bias": jnp.zeros(24)} if name == "layer" else {})
    errors = {}
    for dtype in ("float32", "bfloat16"):
        section = tiny(model__norm=name, model__dtype="bfloat16", model__norm_dtype=dtype).model
        cast = {key: value.astype(dtype) for key, value in params.items()}
        out = NORMS[name](section).apply({"params": cast}, x)
        assert out.dtype == jnp.bfloat16
        exact = FORMULAS[name](np.asarray(x, np.float64), 1, 0, 1e-5)
        errors[dtype] = np.abs(np.asarray(out, np.float64) - exact).mean()
    assert errors["float32"] < errors["bfloat16"]
