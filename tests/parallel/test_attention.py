"""Attention over eight devices: what one device computes, its keys gathered where tokens are split, its queries not."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from lm.model import attend, kernels, masks
from lm.parallel import attention
from lm.refusal import Refusal

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 4, 260, 4, 2, 8


@pytest.fixture(scope="module")
def inputs():
    """Return query, key, value and the weights of a sum of what comes out, and segments."""
    generator = np.random.default_rng(0)
    heads = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    arrays = [generator.normal(size=(ROWS, LENGTH, count, WIDTH)).astype(np.float32) for count in heads]
    return arrays, np.sort(generator.integers(0, 3, (ROWS, LENGTH), np.int32), axis=1)[:, ::-1]


def _loss(attend, segments, weights, window):
    mask = masks.packed(jnp.asarray(segments))._replace(window=window)

    def loss(query, key, value):
        out = attend(query, key, value, mask, "float32")
        return jnp.sum(out * weights), out

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


@pytest.fixture(scope="module")
def expected(inputs):
    """Return a function: window → the sum, what einsum gives on one device, and gradients."""
    (*arrays, weights), segments = inputs
    return {window: _loss(attend.einsum, segments, weights, window)(*arrays) for window in (None, 37)}


@pytest.fixture
def plain(monkeypatch):
    """Let what cuDNN would compute be computed as XLA does."""
    compute = jax.nn.dot_product_attention
    stand_in = lambda *given, implementation, **more: compute(*given, **more, implementation="xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("name", "sizes", "window"),
    [
        *((name, {"data": 2, "sequence": 2, "tensor": 2}, 37) for name in ("einsum", "xla", "cudnn")),
        ("splash", {"data": 2, "fsdp": 2, "tensor": 2}, 37),
        ("splash", {"data": 2, "sequence": 2, "tensor": 2}, None),
    ],
)
def test_values_and_gradients_are_those_of_one_device(mesh_of, inputs, expected, name, sizes, window):
    (*arrays, weights), segments = inputs
    mesh = mesh_of(**sizes)
    kernel = kernels.ATTENDS[name]
    loss = _loss(attention.placed(kernel.attend, kernel.takes, mesh, "jit"), segments, weights, window)
    split = NamedSharding(mesh, attention.ARRAYS["query"])
    program = loss.lower(
        *(jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=split) for array in arrays)
    ).compile()
    (_, out), gradients = program(*(jax.device_put(array, split) for array in arrays))
    (_, plain), plain_gradients = expected[window]
    assert out.sharding.is_equivalent_to(split, 4) and len(out.addressable_shards) == 8
    np.testing.assert_allclose(out, plain, atol=2e-6)
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert np.abs(other).max() > 0.5
        np.testing.assert_allclose(one, other, atol=2e-5)
    gathered = [_size(line) for line in program.as_text().splitlines() if " all-gather(" in line]
    keys = ROWS // 2 * LENGTH * KV_HEADS // 2 * WIDTH
    if "sequence" in sizes:
        assert gathered.count(keys) >= 2 and set(gathered) == {keys}
    else:
        assert not gathered


CALL = '%call = (bf16[8,4], u8[0]) custom-call(%q, %k), custom_call_target="__cudnn$fmhaScaleBiasSoftmax", api=4'


def test_a_program_that_has_the_kernel_is_taken():
    attention.check_fused(f"ENTRY %main {{\n  {CALL}\n}}", "cudnn", "__cudnn$fmha")


@pytest.mark.parametrize(
    "text",
    [
        "",
        CALL.replace("__cudnn$fmhaScaleBiasSoftmax", "__cublas$gemm"),
        '%dot = f32[2,2] dot(%q, %k), metadata={op_name="__cudnn$fmhaSoftmax"}',
    ],
)
def test_a_program_without_the_kernel_is_refused(text):
    with pytest.raises(Refusal, match=r"parallel\.attention is 'cudnn': the compiled step has no '__cudnn\$fmha'"):
        attention.check_fused(text, "cudnn", "__cudnn$fmha")


def test_a_step_is_compiled_once_and_looked_at(monkeypatch):
    traces = []
    step = jax.jit(lambda state, batch: traces.append(None) or (state + batch, batch), donate_argnums=0)
    with pytest.raises(Refusal, match="'cudnn': the compiled step has no '__cudnn"):
        attention.fused(step, "cudnn", "__cudnn$fmha")(jnp.ones(3), jnp.ones(3))
    seen = []
    monkeypatch.setattr(attention, "check_fused", lambda text, name, call: seen.append(text))
    traces.clear()
    state, run = jnp.ones(4), attention.fused(step, "cudnn", "__cudnn$fmha")
    for _ in range(3):
        state, _ = run(state, jnp.full(4, 2.0))
    np.testing.assert_array_equal(state, np.full(4, 7))
    assert len(seen) == len(traces) == 1 and "HloModule" in seen[0]


def _size(line):
    """Return how many numbers an operation of a compiled program gives."""
    return math.prod(map(int, re.search(r"= \w+\[([\d,]+)\]", line)[1].split(",")))
