"""Linear maps, alone and several of one input."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from lm.model.dense import Dense, together


class _Pair(nn.Module):
    config: object
    has_bias: bool | None

    @nn.compact
    def __call__(self, x, is_together):
        layer = lambda heads, name: Dense(self.config, (24,), (heads, 6), has_bias=self.has_bias, name=name)
        layers = layer(4, "a"), layer(2, "b")
        return together(x, *layers) if is_together else [layer(x) for layer in layers]


@pytest.mark.parametrize(("bias", "has_bias"), [(True, None), (False, None), (False, True), (True, False)])
def test_together_is_separate(tiny, bias, has_bias):
    """With what config.bias says, and what a layer says itself."""
    section = tiny(model__bias=bias).model
    x = np.random.default_rng(0).normal(size=(2, 5, 24)).astype(np.float32)
    pair = _Pair(section, has_bias)
    params = pair.init(jax.random.key(0), x, True)["params"]
    assert ("bias" in params["a"]) == (bias if has_bias is None else has_bias)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    for kind in (True, False):
        for name, out in zip("ab", jax.jit(pair.apply, static_argnums=2)({"params": params}, x, kind), strict=True):
            added = np.asarray(params[name].get("bias", np.zeros((1, 1))))[None, None]
            expected = np.einsum("btd,dhc->bthc", x, params[name]["kernel"]) + added
            np.testing.assert_allclose(out, expected, atol=1e-5)


def test_several_input_axes(tiny):
    section = tiny(model__bias=True).model
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float32)
    layer = Dense(section, (4, 6), (24,), "out")
    params = jax.tree.map(lambda leaf: leaf + 0.1, layer.init(jax.random.key(0), x)["params"])
    expected = np.einsum("bthc,hcd->btd", x, params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize(("role", "deviation"), [("in", 0.02), ("out", 0.02 / 6**0.5)])
def test_initial_kernel_has_the_deviation_of_its_role(tiny, role, deviation):
    layer = Dense(tiny().model, (70,), (7, 90), role)
    kernel = layer.init(jax.random.key(0), np.zeros((1, 1, 70)))["params"]["kernel"]
    assert abs(float(kernel.std()) / deviation - 1) < 0.02 and abs(float(kernel.mean())) < 5e-4
