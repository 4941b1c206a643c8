"""Which way to compute attention a run takes, and in what words another is refused."""

from types import SimpleNamespace

import pytest

from lm.model import kernels
from lm.refusal import Refusal

CPU = SimpleNamespace(platform="cpu")
TPU = SimpleNamespace(platform="tpu")
H100 = SimpleNamespace(platform="gpu", compute_capability="9.0")


@pytest.mark.parametrize(
    ("device", "model", "expected"),
    [
        (CPU, {}, "einsum"),
        (TPU, {"family": "llama"}, "xla"),
        (TPU, {"family": "gemma2"}, "einsum"),
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
    ],
)
def test_refusals(tiny, name, device, model, words):
    section = tiny(**{f"model.{field}": value for field, value in model.items()}).model
    with pytest.raises(Refusal, match=rf"parallel\.attention is '{name}': .*{words}.*'einsum'"):
        kernels.chosen(name, section, False, device)
