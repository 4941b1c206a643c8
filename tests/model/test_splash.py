"""The kernel of TPUs, interpreted, against one query at a time and against differences of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import masks
from lm.model.splash import splash

SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3], [1, 2, 2, 2, 2, 0, 0]])
OTHERS = np.array([[1, 1, 2, 2, 2, 3, 1, 3, 3, 0, 0], [2, 2, 0, 1, 1, 1, 1, 1, 0, 0, 2]])
CASES = {
    "causal, grouped heads": (masks.packed(SEGMENTS), 4, 2, {}),
    "causal, a window, a soft cap, a scale": (
        masks.packed(SEGMENTS)._replace(window=2),
        3,
        1,
        {"soft_cap": 0.8, "scale": 0.7},
    ),
    "full, a window": (masks.packed(SEGMENTS, is_causal=False)._replace(window=2), 2, 2, {}),
    "across": (masks.across(SEGMENTS, OTHERS), 2, 1, {"scale": 1.0}),
}


@pytest.mark.parametrize(("mask", "heads", "kv_heads", "options"), CASES.values(), ids=CASES)
def test_values_and_gradients(slow_attention, mask, heads, kv_heads, options):
    generator = np.random.default_rng(0)
    slots = mask.key_segments.shape[1]
    shapes = (2, 7, heads, 5), (2, slots, kv_heads, 5), (2, slots, kv_heads, 5)
    inputs = [generator.normal(size=shape) for shape in shapes]
    weights = generator.normal(size=shapes[0])
    allowed = np.array(masks.allowed(mask))
    slow = lambda *inputs: slow_attention(*inputs, allowed, None, options.get("soft_cap"), options.get("scale"))

    def loss(*inputs):
        out = splash(*inputs, mask, "float32", interpret=True, **options)
        return jnp.sum(out * weights.astype("float32")), out

    given = [jnp.asarray(array, jnp.float32) for array in inputs]
    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*given)
    np.testing.assert_allclose(out, slow(*inputs), atol=3e-6)
    for place, (array, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        direction, little = generator.normal(size=array.shape), 1e-4
        moved = [[*inputs[:place], array + side * little * direction, *inputs[place + 1 :]] for side in (1, -1)]
        ahead, behind = (np.sum(slow(*both) * weights) for both in moved)
        expected = (ahead - behind) / (2 * little)
        assert abs(expected) > 0.05
        np.testing.assert_allclose(np.sum(np.asarray(gradient, np.float64) * direction), expected, rtol=2e-4, atol=1e-5)


def test_without_a_tpu_it_must_be_told_to_interpret():
    inputs = [jnp.ones((2, 7, 1, 5))] * 3
    with pytest.raises(ValueError, match="Only interpret mode is supported on CPU"):
        splash(*inputs, masks.packed(SEGMENTS), "float32")
