"""Activations and the feed-forward against their formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.feedforward import ACTIVATIONS, FeedForward

FORMULAS = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: x if x > 0 else 0.0,
    "relu_squared": lambda x: x**2 if x > 0 else 0.0,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    x = np.linspace(-6, 6, 101)
    out = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(out, np.vectorize(FORMULAS[name])(x), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_gated", [True, False])
def test_formula(tiny, is_gated, has_bias):
    section = tiny(model__gated=is_gated, model__bias=has_bias, model__activation="silu").model
    generator = np.random.default_rng(0)
    shapes = {"in": (24, 40), "out": (40, 24)} | ({"gate": (24, 40)} if is_gated else {})
    params = {
        name: {"kernel": generator.normal(size=shape)} | ({"bias": generator.normal(size=shape[1])} if has_bias else {})
        for name, shape in shapes.items()
    }
    x = generator.normal(size=(2, 5, 24))
    apply = lambda name, x: x @ params[name]["kernel"] + params[name].get("bias", 0)
    act = np.vectorize(FORMULAS["silu"])
    inner = act(apply("gate", x)) * apply("in", x) if is_gated else act(apply("in", x))
    cast = {
        name: {key: jnp.asarray(value, jnp.float32) for key, value in leaf.items()} for name, leaf in params.items()
    }
    out = FeedForward(section).apply({"params": cast}, x.astype(np.float32))
    np.testing.assert_allclose(out, apply("out", inner), rtol=1e-4, atol=1e-4)
