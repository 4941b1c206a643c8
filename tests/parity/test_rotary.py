"""Rotary positions for longer contexts beside Transformers' own rates, of published numbers and odd ones."""

import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lm.families.base import Rotary
from lm.model.positions import rotary_rates, rotary_stretch
from lm.weights import config_rotary

YARN = {  # width of a head, base, what rope_parameters says
    "Qwen 2.5": (128, 1e6, {"factor": 4.0, "original_max_position_embeddings": 32768}),
    "Llama 2, 64k": (128, 1e4, {"factor": 16.0, "original_max_position_embeddings": 4096, "attention_factor": 1.277}),
    "odd": (14, 500.0, {"factor": 7.5, "beta_slow": 0.3, "beta_fast": 5.0, "original_max_position_embeddings": 97}),
    "all pairs between": (22, 1e9, {"factor": 3.0, "beta_fast": 1e4, "original_max_position_embeddings": 1031}),
    "none squeezed": (6, 3.0, {"factor": 3.0, "original_max_position_embeddings": 8192}),
    "no room between": (6, 500.0, {"factor": 3.0, "beta_fast": 1.0001, "original_max_position_embeddings": 7}),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", YARN)
def test_yarn(name, tiny):
    width, base, said = YARN[name]
    rope = said | {"rope_type": "yarn", "rope_theta": base}
    context = int(said["factor"] * said["original_max_position_embeddings"])
    config = transformers.LlamaConfig(head_dim=width, max_position_embeddings=context, rope_parameters=rope)
    rates, stretch = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    section = _section(tiny, width, config_rotary.read(Rotary(1e4), {"rope_parameters": rope}, {"context": context}))
    np.testing.assert_allclose(rotary_rates(section, False), rates.numpy(), rtol=1e-5)
    assert rotary_stretch(section, False) == pytest.approx(stretch)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("width", "factor"), [(128, 4.0), (14, 7.5)])
def test_ntk_is_the_dynamic_rule_at_one_length(width, factor, tiny):
    rope = {"rope_type": "dynamic", "factor": 1.0, "rope_theta": 1e4}
    config = transformers.LlamaConfig(head_dim=width, max_position_embeddings=1024, rope_parameters=rope)
    rates, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=int(factor * 1024))
    section = _section(tiny, width, {"rotary_base": 1e4, "rotary_scaling": "ntk", "rotary_factor": factor})
    np.testing.assert_allclose(rotary_rates(section, False), rates.numpy(), rtol=1e-5)


def _section(tiny, width, fields):
    given = {f"model__{name}": value for name, value in fields.items()}
    return tiny(model__positions="rotary", model__head_width=width, **given).model
