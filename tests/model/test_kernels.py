"""Which way to compute attention a run takes, and in what words another is refused."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.families.catalog import FAMILIES
from lm.model import attend, kernels, masks
from lm.model.transformer import Transformer, forward
from lm.refusal import Refusal
from lm.weights.bundle import shapes

CPU = SimpleNamespace(platform="cpu")
TPU = SimpleNamespace(platform="tpu")
AMD = SimpleNamespace(platform="gpu", compute_capability="gfx90a")
A100 = SimpleNamespace(platform="gpu", compute_capability="8.0")
H100 = SimpleNamespace(platform="gpu", compute_capability="9.0")


@pytest.mark.parametrize(
    ("device", "model", "expected"),
    [
        (CPU, {}, "einsum"),
        (TPU, {"family": "gemma2"}, "splash"),
        (TPU, {"family": "t5"}, "xla"),
        (TPU, {"softmax_dtype": "bfloat16"}, "einsum"),
        (H100, {"dtype": "bfloat16", "head_width": 256}, "cudnn"),
        (A100, {"dtype": "bfloat16", "head_width": 256}, "xla"),
        (AMD, {"dtype": "bfloat16", "head_width": 8}, "xla"),
        (H100, {"family": "t5"}, "xla"),
        (H100, {"softmax_dtype": "bfloat16"}, "einsum"),
    ],
)
def test_auto(tiny, device, model, expected):
    section = tiny(**{f"model.{name}": value for name, value in model.items()}).model
    assert kernels.chosen("auto", section, False, device) == expected


@pytest.mark.parametrize(
    ("name", "device", "model", "words"),
    [
        ("xla", CPU, {"family": "gemma2"}, r"knows no model\.attention_soft_cap, which is 50\.0"),
        ("xla", TPU, {"softmax_dtype": "bfloat16"}, r"float32, and model\.softmax_dtype is 'bfloat16'"),
        ("splash", TPU, {"softmax_dtype": "bfloat16"}, r"float32, and model\.softmax_dtype is 'bfloat16'"),
        ("splash", TPU, {"positions": "alibi"}, r"adds nothing to scores, as model\.positions 'alibi' do"),
        ("cudnn", CPU, {}, r"NVIDIA's GPUs from Ampere on \(A100, RTX 30\), and this is a cpu"),
        ("cudnn", AMD, {}, r"NVIDIA's GPUs from Ampere on \(A100, RTX 30\), and this is a gpu of gfx90a"),
        ("cudnn", H100, {"head_width": 8}, r"16 bits, and model\.dtype is 'float32'"),
        ("cudnn", H100, {"dtype": "bfloat16", "head_width": 12}, r"up to 256 there, and model\.head_width is 12"),
        ("cudnn", A100, {"dtype": "bfloat16", "head_width": 136}, r"up to 128 there, and model\.head_width is 136"),
        ("cudnn", H100, {"dtype": "bfloat16", "family": "t5", "head_width": 8}, r"adds nothing to scores"),
        ("cudnn", H100, {"dtype": "bfloat16", "family": "gemma2", "head_width": 8}, r"knows no .*soft_cap"),
        ("splash", H100, {}, r"is for TPUs \(a CPU interprets it\), and this is a gpu"),
    ],
)
def test_refusals(tiny, name, device, model, words):
    section = tiny(**{f"model.{field}": value for field, value in model.items()}).model
    with pytest.raises(Refusal, match=rf"parallel\.attention is '{name}': .*{words}.*'einsum'"):
        kernels.chosen(name, section, False, device)


def test_a_prefix_is_refused(tiny):
    assert kernels.chosen("auto", tiny().model, True, TPU) == "xla"
    with pytest.raises(Refusal, match=r"'splash': it knows no prefix .*objective\.name or objective\.prefix"):
        kernels.chosen("splash", tiny().model, True, TPU)


MODELS = {family: {"family": family} for family in FAMILIES} | {
    "across": {"family": "t5", "positions": "sinusoidal", "encoder_layers": 2},
}


@pytest.mark.parametrize(("name", "device"), [("xla", TPU), ("splash", TPU), ("cudnn", H100)])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_step_uses_what_is_not_refused_and_nothing_else(monkeypatch, tiny, random_batch, model, name, device):
    model = {f"model.{field}": value for field, value in model.items()} | {"model.layers": 2, "model.head_width": 8}
    model["model.dtype"] = "bfloat16"
    kernel, section, calls, einsum = kernels.ATTENDS[name], tiny(**model).model, [], attend.einsum
    model = Transformer(section, kernel.attend)
    params = shapes(model)
    monkeypatch.setattr(attend, "einsum", lambda *given: calls.append(given) or einsum(*given))
    shaped = jax.nn.dot_product_attention  # which looks for cuDNN
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *given, implementation, **more: shaped(*given, **more))
    jax.eval_shape(lambda params, batch: forward(model)(params, batch, None).hidden, params, random_batch())
    assert (len(calls) > 0) == (kernel.cannot(section, False, device) is not None)


PLACES = np.array([[4], [2]])
SEGMENTS = np.array([[1, 1, 1, 2, 2], [1, 2, 2, 0, 0]])
OTHERS = {
    "a cache": (masks.cached(PLACES, 5), {}),
    "distances": (masks.apart(PLACES[:, :, None] - np.arange(5)), {}),
    "a prefix": (masks.packed(SEGMENTS, prefix_BT=SEGMENTS == 1), {}),
    "a bias": (masks.packed(SEGMENTS), {"bias": lambda distance_BTS: distance_BTS[:, None] * jnp.ones((1, 2, 1, 1))}),
}


SERVED = [("cudnn", "a prefix")]


@pytest.mark.parametrize(
    ("kernel", "name"), [pair for pair in itertools.product(["cudnn", "splash"], OTHERS) if pair not in SERVED]
)
def test_calls_that_a_kernel_does_not_serve_are_einsums(kernel, name):
    mask, options = OTHERS[name]
    length = 5 if mask.distance is None and mask.query_places.shape[1] == 5 else 1
    generator = np.random.default_rng(0)
    query, key, value = (jnp.asarray(generator.normal(size=(2, count, 2, 3))) for count in (length, 5, 5))
    expected = attend.einsum(query, key, value, mask, "float32", **options)
    found = kernels.ATTENDS[kernel].attend(query, key, value, mask, "float32", **options)
    np.testing.assert_array_equal(found, expected)
