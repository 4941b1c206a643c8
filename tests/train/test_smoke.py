"""Every option of the model trains: a few steps on one batch, and the loss falls."""

import jax
import numpy as np
import pytest

from lm.config import schema
from lm.config.objective import ARCHITECTURES
from lm.config.resolve import flatten

_PAIRS = {"data.source": "embedded:summaries", "objective.name": "seq2seq"}
_CLASSES = {"data.source": "embedded:kinds", "objective.name": "classify", "objective.labels": ("C", "D", "E")}

# Options of different fields share a case; all together have every choice of every field and every option turned on.
CASES = {
    "gpt2": {
        "model.family": "gpt2",
        "model.dropout": 0.05,
        "objective.label_smoothing": 0.1,
        "objective.z_loss": 1e-3,
    },
    "llama, bfloat16": {
        "model.family": "llama",
        "model.rotary_scaling": "llama3",
        "model.rotary_factor": 2.0,
        "model.init": "small",
        "model.dtype": "bfloat16",
        "model.parameter_dtype": "bfloat16",
        "model.softmax_dtype": "bfloat16",
        "model.norm_dtype": "bfloat16",
        "model.logits_dtype": "bfloat16",
    },
    "alibi, parallel": {
        "model.family": "mistral",
        "model.positions": "alibi",
        "model.wiring": "parallel",
        "model.activation": "relu_squared",
        "model.attention_soft_cap": 5.0,
        "model.logits_soft_cap": 10.0,
        "model.init": "fan_in",
        "model.zero_init": True,
    },
    "relative, sandwich": {
        "model.family": "qwen3",
        "model.positions": "relative",
        "model.relative_buckets": 6,
        "model.relative_distance": 9,
        "model.wiring": "sandwich",
        "model.qk_norm": True,
        "model.windows": (3, 0),
    },
    "sinusoidal, post": {
        "model.family": "qwen2",
        "model.positions": "sinusoidal",
        "model.wiring": "post",
        "model.activation": "gelu",
        "model.stochastic_depth": 0.2,
        "model.token_dropout": 0.1,
        "model.remat": "dots",
    },
    "none": {
        "model.family": "gpt_neox",
        "model.positions": "none",
        "model.value_embeddings": 2,
        "model.residual_scalars": True,
        "model.unroll": 2,
        "model.remat": "full",
    },
    "gemma2": {
        "model.family": "gemma2",
        "model.windows": (5, 0),
        "model.activation": "relu",
        "model.projections": "joined",
        "model.remat": "attention",
    },
    "gemma3": {
        "model.family": "gemma3",
        "model.windows": (5, 0),
        "model.projections": "apart",
        "model.rotary_scaling": "linear",
        "model.rotary_factor": 2.0,
    },
    "masked": {"model.family": "bert", "objective.name": "masked"},
    "span": {"model.family": "t5", "objective.name": "span"},
    "span, decoder": {"model.family": "qwen3_moe", "model.router_normalized": False, "objective.name": "span"},
    "mixture": {"model.architecture": "encoder_decoder", "objective.name": "mixture"},
    "mixture, decoder": {"objective.name": "mixture"},
    "prefix": {"model.family": "mixtral", "objective.name": "prefix"},
    "seq2seq": {"model.family": "t5", **_PAIRS},
    "seq2seq, decoder": {**_PAIRS, "objective.prefix": True},
    "classify": {"model.family": "roberta", **_CLASSES},
    "classify, decoder": {"model.family": "llama", "model.remat": "offload", **_CLASSES},
    "mixtral, places": {
        "model.family": "mixtral",
        "model.experts": 4,
        "model.dispatch": "capacity",
        "model.rotary_scaling": "ntk",
        "model.rotary_factor": 2.0,
        "model.dropout": 0.05,
        "objective.balance_loss": 0.0,
    },
    "qwen3_moe, bfloat16": {
        "model.family": "qwen3_moe",
        "model.experts": 4,
        "model.router_normalized": False,
        "model.rotary_scaling": "yarn",
        "model.rotary_factor": 2.0,
        "model.rotary_attention": 1.1,
        "model.dtype": "bfloat16",
        "model.remat": "dots",
    },
}
_UNTRAINED = {"model.head": {"none"}}  # choices that nothing is learned with


@pytest.fixture
def config(tiny):
    """Return a function: a case → its config."""
    layers = lambda case: {"model.layers": 1 if "objective.name" in CASES[case] else 2}
    return lambda case: tiny(**layers(case), **{"schedule.name": "constant", "schedule.peak": 1e-2} | CASES[case])


def test_every_choice_and_option_is_in_a_case(config):
    found = [flatten(config(case)) for case in CASES]
    for name, field in schema.FIELDS.items():
        if name.startswith("model."):
            values = [flat[name] for flat in found]
            if field.rule.choices:
                assert set(values) == set(field.rule.choices) - _UNTRAINED.get(name, set()), name
            elif field.type is bool or any(value in (0, ()) for value in values):
                assert any(values) and not all(values), f"{name} is never turned on and off"
    assert any(flat["objective.label_smoothing"] for flat in found) and any(flat["objective.z_loss"] for flat in found)


def test_every_objective_is_trained_with_every_architecture_it_allows(config):
    found = {(made.objective.name, made.model.architecture) for made in map(config, CASES)}
    assert found == {(name, one) for name, allowed in ARCHITECTURES.items() for one in allowed}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_falls(config, assembled, random_batch, shaped, case):
    made = config(case)
    create, step = assembled(made)
    batch = random_batch() if made.objective.name == "causal" else shaped(made)
    run = jax.jit(lambda: jax.lax.scan(lambda state, _: step(state, batch), create(), None, length=16))
    _, metrics = run()
    assert (np.asarray(metrics["non_finite"]) == -1).all() and (np.asarray(metrics["grad_norm"]) > 0).all()
    losses = np.asarray(metrics["loss"], np.float64)
    assert losses[-1] < losses[0] - 0.5, losses
