"""What cuDNN's kernel is asked for: computed by XLA it is the slow reference's answer; and it is a call in a program.

The kernel itself runs on a GPU only.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import masks
from lm.model.cudnn import cudnn

SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3], [1, 2, 2, 2, 2, 0, 0]])
OTHERS = np.array([[1, 1, 2, 2, 2, 3, 1, 3, 3, 0, 0], [2, 2, 0, 1, 1, 1, 1, 1, 0, 0, 2]])
PREFIX = np.array([[1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]], bool)
CASES = {
    "causal": (masks.packed(SEGMENTS), True, 0.7),
    "a window": (masks.packed(SEGMENTS)._replace(window=2), True, None),
    "full": (masks.packed(SEGMENTS, is_causal=False), False, None),
    "a prefix": (masks.packed(SEGMENTS, prefix_BT=PREFIX), False, None),
    "across": (masks.across(SEGMENTS, OTHERS), False, 1.0),
}


def _inputs(slots, dtype, width):
    generator = np.random.default_rng(0)
    shapes = (2, 7, 6, width), (2, slots, 2, width), (2, slots, 2, width)
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("mask", "is_causal", "scale"), CASES.values(), ids=CASES)
def test_what_is_asked_for_is_the_slow_references(monkeypatch, slow_attention, mask, is_causal, scale):
    asked, compute = [], jax.nn.dot_product_attention

    def stand_in(*given, implementation, **more):
        asked.append((implementation, more["is_causal"], more["mask"].shape, *(array.shape[1] for array in given)))
        return compute(*given, **more, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    slots = mask.key_segments.shape[1]
    inputs = _inputs(slots, "float32", 5)
    out = cudnn(*inputs, mask, "float32", scale=scale)
    assert asked == [("cudnn", is_causal, (2, 1, 8, slots + 1), 8, slots + 1, slots + 1)]
    expected = slow_attention(*map(np.asarray, inputs), np.asarray(masks.allowed(mask)), None, None, scale)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["a window", "across"])
def test_a_program_for_a_gpu_calls_the_kernel_forward_and_backward(monkeypatch, name):
    """It is lowered, as far as one gets without a GPU, and has no products of scores of its own."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    mask = CASES[name][0]
    loss = lambda *inputs: jnp.sum(cudnn(*inputs, mask, "float32").astype("float32"))
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*_inputs(mask.key_segments.shape[1], "bfloat16", 8))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__cudnn$fmhaScaleBiasSoftmax(") == text.count("@__cudnn$fmhaScaleBiasSoftmaxBackward(") == 1
    assert "dot_general" not in text
