"""Rotary positions of config.json, in today's form and the older ones, as Transformers' classes read them."""

import pytest

from lm.families.base import Rotary
from lm.refusal import Refusal
from lm.weights import config_rotary

PLAIN = Rotary(10000.0)
NEOX = Rotary(10000.0, older=("rotary_emb_base",), share=0.25, shares=("rotary_pct",))
GEMMA3 = Rotary(1e6, window_base=10000.0)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 2,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 97,
}
FIELDS = {"rotary_factor": 32.0, "rotary_low": 2.0, "rotary_high": 5.0, "rotary_original_context": 97}
QWEN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 257}  # as the cards of Qwen 2.5 and 3 say it
YARN = {"rotary_scaling": "yarn", "rotary_factor": 4.0, "rotary_original_context": 257}
DERIVED = {"rotary_slow": 1.0, "rotary_fast": 32.0, "rotary_attention": 0.0}


@pytest.mark.parametrize(
    ("row", "theirs", "fields"),
    [
        (PLAIN, {}, {"rotary_base": 10000.0, "rotary_scaling": "none"}),
        (PLAIN, {"rope_theta": 7, "rope_scaling": None}, {"rotary_base": 7.0}),
        (
            PLAIN,
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}, "rope_theta": 7},
            {"rotary_base": 5.0},
        ),
        (PLAIN, {"rope_scaling": {"type": "linear", "factor": 2}}, {"rotary_scaling": "linear", "rotary_factor": 2.0}),
        (PLAIN, {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, FIELDS | {"rotary_base": 5e5}),
        (PLAIN, {"rope_scaling": LLAMA3, "rope_theta": 5e5}, FIELDS | {"rotary_scaling": "llama3"}),
        (
            PLAIN,
            {"rope_scaling": {name: LLAMA3[name] for name in list(LLAMA3)[:4]}},
            {"rotary_original_context": 1031},
        ),
        (PLAIN, {"rope_scaling": QWEN, "rope_theta": 1e6}, YARN | DERIVED | {"rotary_base": 1e6}),
        (PLAIN, {"rope_scaling": QWEN | {"attention_factor": None, "beta_fast": None, "truncate": True}}, DERIVED),
        (
            PLAIN,
            {"rope_parameters": QWEN | {"beta_slow": 2, "beta_fast": 3, "attention_factor": 1.5}},
            YARN | {"rotary_slow": 2.0, "rotary_fast": 3.0, "rotary_attention": 1.5},
        ),
        (PLAIN, {"rope_scaling": {"type": "yarn", "factor": 2.0}}, {"rotary_original_context": 1031}),
        (NEOX, {}, {"rotary_base": 10000.0, "rotary_share": 0.25}),
        (NEOX, {"rotary_pct": 0.5, "rotary_emb_base": 7}, {"rotary_base": 7.0, "rotary_share": 0.5}),
        (NEOX, {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 1.0}}, {"rotary_share": 1.0}),
        (GEMMA3, {}, {"rotary_base": 1e6, "rotary_window_base": 10000.0, "rotary_scaling": "none"}),
        (
            GEMMA3,
            {"rope_theta": 9e5, "rope_local_base_freq": 7, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            {"rotary_base": 9e5, "rotary_window_base": 7.0, "rotary_scaling": "linear", "rotary_factor": 8.0},
        ),
        (
            GEMMA3,
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 9e5},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
                }
            },
            {"rotary_base": 9e5, "rotary_window_base": 7.0, "rotary_factor": 8.0},
        ),
    ],
)
def test_fields_are_read(row, theirs, fields):
    found = config_rotary.read(row, theirs, {"context": 1031})
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("row", "theirs", "words"),
    [
        (
            PLAIN,
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "'dynamic'.*: types that are read are default",
        ),
        (PLAIN, {"rope_scaling": QWEN | {"mscale": 1.0}}, "has or lacks 'mscale'"),
        (PLAIN, {"rope_scaling": QWEN | {"mscale_all_dim": 1.0}}, "has or lacks 'mscale_all_dim'"),
        (PLAIN, {"rope_scaling": QWEN | {"truncate": False}}, "has or lacks 'truncate'"),
        (PLAIN, {"rope_scaling": QWEN | {"attention_factor": 0}}, "attention_factor is 0: it must be above 0"),
        (PLAIN, {"rope_scaling": QWEN | {"attention_factor": "1"}}, "attention_factor is '1': it must be a number"),
        (PLAIN, {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 257}}, "has or lacks 'factor'"),
        (PLAIN, {"rope_scaling": {"rope_type": ["linear"]}}, r"\['linear'\]"),
        (PLAIN, {"rope_scaling": [2.0]}, r"rope_scaling is \[2.0\]: it must be an object"),
        (PLAIN, {"rope_scaling": {"rope_type": "linear"}}, "has or lacks 'factor'"),
        (PLAIN, {"rope_scaling": {"rope_type": "linear", "factor": None}}, "factor is None: it must be a number"),
        (PLAIN, {"rope_scaling": {"rope_type": "linear", "factor": True}}, "factor is True: it must be a number"),
        (PLAIN, {"rope_theta": 10**400}, "rope_theta is 1000"),
        (PLAIN, {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "has or lacks 'beta'"),
        (PLAIN, {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        (PLAIN, {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "full_attention"),
        (GEMMA3, {"rope_parameters": {"full_attention": {}, "chunked_attention": {}}}, "chunked_attention"),
        (
            GEMMA3,
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8.0}}},
            "rope_parameters of sliding_attention",
        ),
    ],
)
def test_what_is_not_honoured_is_refused(row, theirs, words):
    with pytest.raises(Refusal, match=words):
        config_rotary.read(row, theirs, {"context": 1031})


@pytest.mark.parametrize(
    ("row", "options"),
    [
        (PLAIN, {}),
        (PLAIN, {"rotary_scaling": "linear", "rotary_factor": 3.0}),
        (PLAIN, FIELDS | {"rotary_scaling": "llama3"}),
        (PLAIN, YARN | DERIVED),
        (NEOX, YARN | {"rotary_slow": 2.0, "rotary_fast": 3.0, "rotary_attention": 1.5, "rotary_share": 0.7}),
        (NEOX, {"rotary_share": 0.7}),
        (GEMMA3, {"rotary_window_base": 7.0, "rotary_scaling": "linear", "rotary_factor": 8.0}),
    ],
)
def test_both_forms_that_are_written_say_the_same(tiny, row, options):
    fields = {f"model__{name}": value for name, value in options.items()}
    section = tiny(model__positions="rotary", model__rotary_base=500.0, **fields).model
    written = config_rotary.write(row, section)
    assert set(written) <= set(config_rotary.names(row))
    older = {name: value for name, value in written.items() if name != "rope_parameters"}
    today = {"rope_parameters": written["rope_parameters"]}
    expected = options | {"rotary_base": 500.0, "rotary_scaling": section.rotary_scaling}
    for theirs in (written, older, today):
        found = config_rotary.read(row, theirs, {"context": 1031})
        assert {name: found[name] for name in expected} == expected


def test_what_no_published_form_has_is_refused(tiny):
    section = tiny(model__positions="rotary", model__rotary_scaling="ntk", model__rotary_factor=2.0).model
    with pytest.raises(Refusal, match="rotary_scaling is 'ntk': published layouts hold only none, linear"):
        config_rotary.write(PLAIN, section)


def test_other_positions_are_refused(tiny):
    with pytest.raises(Refusal, match=r"model\.positions is 'alibi'"):
        config_rotary.write(PLAIN, tiny(model__positions="alibi").model)
