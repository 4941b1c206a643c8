"""config.json ↔ model section: against what Transformers' own classes write, in the forms of today and before."""

import json
from pathlib import Path

import pytest

from lm.config.resolve import flatten
from lm.families.catalog import FAMILIES
from lm.refusal import Refusal
from lm.weights import config

# As transformers 5.23 writes them (tests/golden/make_logits.py), beside what is refused or silent.
GPT2 = {
    "activation_function": "gelu_new",
    "add_cross_attention": False,
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 0,
    "dtype": "float32",
    "embd_pdrop": 0.1,
    "eos_token_id": 0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": 24,
    "n_head": 4,
    "n_inner": None,
    "n_layer": 3,
    "n_positions": 13,
    "pad_token_id": None,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.1,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "tie_word_embeddings": True,
    "transformers_version": "5.23.0",
    "use_cache": True,
    "vocab_size": 61,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "dtype": "float32",
    "eos_token_id": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "max_position_embeddings": 13,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": None,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "transformers_version": "5.23.0",
    "use_cache": True,
    "vocab_size": 61,
}
GEMMA2 = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 3,
    "head_dim": 128,
    "query_pre_attn_scalar": 144,
    "attn_logit_softcapping": None,
    "sliding_window": 7,
}
# As Qwen3-30B-A3B is published, where it is not what the class assumes, and without its sizes.
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "intermediate_size": 6144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "norm_topk_prob": True,
    "num_experts": 128,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}
# 30 layers, of which Transformers' Qwen2Config and Qwen3Config let those from the 28th on slide.
QWEN2 = {"model_type": "qwen2", "num_hidden_layers": 30, "use_sliding_window": True, "sliding_window": 7}
EACH_SLIDES = ["sliding_attention"] * 30
MISTRAL = {"model_type": "mistral", "num_hidden_layers": 30, "sliding_window": 7}
without = lambda theirs, *names: {name: value for name, value in theirs.items() if name not in names}


def read(theirs):
    """Return the model fields of a config.json."""
    return flatten(config.from_theirs(theirs).model)


@pytest.mark.parametrize(
    ("theirs", "fields"),
    [
        (GPT2, {"family": "gpt2", "context": 13, "width": 24, "layers": 3, "heads": 4, "kv_heads": 4, "tied": True}),
        (GPT2, {"feedforward_width": 96, "activation": "gelu_tanh", "vocabulary": 61, "norm_epsilon": 1e-5}),
        (GPT2 | {"n_inner": 40, "activation_function": "gelu"}, {"feedforward_width": 40, "activation": "gelu"}),
        (without(GPT2, "n_positions") | {"n_ctx": 17}, {"context": 17}),
        (without(GPT2, "n_layer"), {"layers": 12}),
        (LLAMA, {"family": "llama", "kv_heads": 2, "head_width": 8, "rotary_base": 500.0, "tied": False}),
        (LLAMA | {"num_key_value_heads": None, "head_dim": None}, {"kv_heads": 4, "head_width": 6}),
        (without(LLAMA, "rope_parameters"), {"rotary_base": 10000.0, "norm_epsilon": 1e-6}),
        (without(LLAMA, "rope_parameters") | {"rope_theta": 7.0, "rope_scaling": None}, {"rotary_base": 7.0}),
        (
            without(LLAMA, "rope_parameters", "dtype") | {"torch_dtype": "bfloat16", "rope_theta": 9},
            {"rotary_base": 9.0},
        ),
        (without(LLAMA, "architectures"), {"family": "llama"}),
        (QWEN3_MOE, {"experts": 128, "experts_per_token": 8, "feedforward_width": 768, "router_normalized": True}),
        (without(QWEN3_MOE, "norm_topk_prob"), {"router_normalized": False, "qk_norm": True, "rotary_base": 1e6}),
        (GEMMA2, {"attention_scale": 144**-0.5, "attention_soft_cap": 0.0, "logits_soft_cap": 30.0, "windows": (7, 0)}),
        (QWEN2, {"windows": (0,) * 28 + (7, 7)}),
        (QWEN2 | {"model_type": "qwen3"}, {"windows": (0,) * 28 + (7, 7)}),
        (QWEN2 | {"max_window_layers": 29}, {"windows": (0,) * 29 + (7,)}),
        (QWEN2 | {"layer_types": EACH_SLIDES}, {"windows": (7,)}),
        (QWEN2 | {"layer_types": EACH_SLIDES, "use_sliding_window": False}, {"windows": ()}),
        (without(QWEN2, "use_sliding_window") | {"layer_types": EACH_SLIDES}, {"windows": ()}),
        (MISTRAL, {"windows": (7,)}),
        (QWEN3_MOE | {"mlp_only_layers": None}, {"experts": 128}),
        (GEMMA2 | {"use_bidirectional_attention": False}, {"architecture": "decoder"}),
    ],
)
def test_fields_are_read(theirs, fields):
    found = read(theirs)
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize("theirs", [GPT2, LLAMA, GPT2 | {"n_inner": 40}, LLAMA | {"rope_theta": 7.0}])
def test_there_and_back(theirs):
    section = config.from_theirs(theirs).model
    written = config.to_theirs(section)
    assert config.from_theirs(written).model == section
    derived = {"n_inner", "rope_theta"}  # written though Transformers would derive them, or for its older versions
    assert {name: value for name, value in written.items() if name not in derived} == {
        name: theirs[name] for name in written if name not in derived
    }


def test_what_is_a_power_or_null_there_comes_back():
    section = config.from_theirs(GEMMA2).model
    written = config.to_theirs(section)
    names = ("query_pre_attn_scalar", "attn_logit_softcapping", "hidden_activation", "use_bidirectional_attention")
    assert [written[name] for name in names] == [144, None, "gelu_pytorch_tanh", None]
    assert type(written["query_pre_attn_scalar"]) is int and config.from_theirs(written).model == section


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({}, "model_type is None: it must be one of"),
        ({"model_type": "mamba"}, "model_type is 'mamba'"),
        (GPT2 | {"architectures": ["GPT2ForTokenClassification"]}, "architectures is 'GPT2ForTokenClassification'"),
        (GPT2 | {"scale_attn_weights": False}, "scale_attn_weights is False: only models with True"),
        (
            GPT2 | {"scale_attn_weihgts": True},
            "scale_attn_weihgts is True.*did you mean 'scale_attn_weights'",
        ),
        (GPT2 | {"activation_function": "mish"}, "activation_function is 'mish': those read are gelu"),
        (GPT2 | {"activation_function": ["gelu"]}, r"activation_function is \['gelu'\]"),
        (GPT2 | {"n_embd": None}, "n_embd is null"),
        (GPT2 | {"n_embd": "24"}, "model.width is '24': it must be at least 1"),
        (GPT2 | {"n_head": 5}, "model.heads is 5: it must divide model.width"),
        (GPT2 | {"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        (LLAMA | {"attention_bias": True}, "attention_bias is True"),
        (LLAMA | {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_parameters is .*'longrope'"),
        (LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_parameters is .*'dynamic'"),
        (GEMMA2 | {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0: it must be above 0"),
        (GEMMA2 | {"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar is 1000"),
        (GEMMA2 | {"query_pre_attn_scalar": "144"}, "model.attention_scale is '144'"),
        (GEMMA2 | {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        (
            GEMMA2 | {"sliding_window_pattern": 2},
            "sliding_window_pattern is 2: models of gemma2 with that are not read",
        ),
        (MISTRAL | {"layer_types": EACH_SLIDES}, "layer_types is .*: models of mistral with that are not read"),
        (MISTRAL | {"use_sliding_window": False}, "use_sliding_window is False: models of mistral"),
        (MISTRAL | {"model_type": "mixtral", "layer_types": EACH_SLIDES}, "layer_types is .*: models of mixtral"),
        (QWEN2 | {"layer_types": []}, r"layer_types is \[\]: it must have"),
        (QWEN3_MOE | {"decoder_sparse_step": 2}, "decoder_sparse_step is 2: only models with 1"),
        (QWEN3_MOE | {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
        (QWEN3_MOE | {"use_sliding_window": True}, "use_sliding_window is True"),
        (QWEN3_MOE | {"num_experts_per_tok": 129}, r"model.experts_per_token is 129: .* \(128\)"),
        (LLAMA | {"rope_parameters": "default"}, "rope_parameters is 'default'"),
        (LLAMA | {"rope_parameters": {"rope_theta": "x"}}, "rope_theta is 'x'"),
        (LLAMA | {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        (LLAMA | {"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'"),
    ],
)
def test_what_is_not_honoured_is_refused_by_its_name(theirs, words):
    with pytest.raises(Refusal, match=words):
        read(theirs)


LONG = ("x" * 5_000_000, [["x" * 5_000_000] * 9] * 9, {"x" * 5_000_000: {"x": 7}}, 10**4000, "a\nb\x1b[1m")
DEEP = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "model_type",
            "architectures",
            "n_embd",
            "n_layer",
            "activation_function",
            "layer_norm_epsilon",
            "is_decoder",
        ),
        *("sliding_window", "layer_types", "use_sliding_window_", "rope_theta", "rope_parameters", "rope_scaling"),
    ],
)
def test_what_a_config_says_is_repeated_in_part(name):
    theirs = GPT2 if name in GPT2 else QWEN2
    for value in (*LONG, DEEP):
        with pytest.raises(Refusal) as refusal:
            read(theirs | {name: value})
        assert len(str(refusal.value)) < 600 and str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (dict.fromkeys(map(str, range(1000)), 1), r"has 1,030 attributes: more than 1,000 are not read"),
        ({"x" * 5_000_000: 1}, "has an attribute 'xxxx.*: that is no name of one"),
        ({"x\x1b[1m": 1}, r"has an attribute 'x\\x1b\[1m': that is no name of one"),
        ({"rope_parameters": {"x" * 5_000_000: 1}}, "rope_parameters is"),
    ],
    ids=["many", "long", "control", "within"],
)
def test_names_of_no_attribute_are_refused(more, words):
    with pytest.raises(Refusal, match=words) as refusal:
        read((GPT2 if "rope_parameters" not in more else LLAMA) | more)
    assert len(str(refusal.value)) < 600 and str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("family", "overrides", "words"),
    [
        ("gpt2", {"kv_heads": 2}, "model.kv_heads is 2: .* would hold 4"),
        ("gpt2", {"kv_heads": 4, "positions": "rotary"}, "model.positions is 'rotary': .* would hold 'learned'"),
        ("gpt2", {"kv_heads": 4, "wiring": "parallel"}, "model.wiring is 'parallel'"),
        ("gpt2", {"kv_heads": 4, "value_embeddings": 1}, "model.value_embeddings is 1"),
        ("mixtral", {"router_normalized": False}, "model.router_normalized is False: .* would hold True"),
        ("llama", {"experts": 4}, "model.experts is 4: .* would hold 0"),
        ("llama", {"windows": (5, 0)}, r"model.windows is \(5, 0\)"),
        ("llama", {"positions": "alibi"}, "model.positions is 'alibi'"),
        ("llama", {"activation": "relu_squared", "attention_soft_cap": 5.0}, "model.attention_soft_cap is 5.0"),
    ],
)
def test_what_a_layout_cannot_say_is_refused_by_our_name(tiny, family, overrides, words):
    section = tiny(model__family=family, **{f"model__{name}": value for name, value in overrides.items()}).model
    with pytest.raises(Refusal, match=words):
        config.to_theirs(section)


ODD = (None, True, -1, 0, 1.5, 10**30, "x", [], {}, [1], {"a": 1}, float("nan"), [[["x", "y"], 2]])


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "qwen2", "bert", "t5"])
def test_whatever_a_config_says_it_is_read_or_refused_in_a_sentence(golden, name):
    theirs = golden(name).config
    rotary = ("rope_parameters", "rope_scaling")
    inner = ("rope_type", "rope_theta", "factor", "partial_rotary_factor", "sliding_attention")
    more = (*rotary, "rope_theta", "sliding_window", "layer_types", "max_window_layers", "num_labels", "id2label")
    values = dict.fromkeys((*theirs, *more), ODD)
    values |= {key: (*ODD, *({word: odd} for word in inner for odd in ODD)) for key in rotary}
    count = 0
    for key, odd in values.items():
        for value in odd:
            try:
                read({**theirs, key: value})
            except Refusal as refusal:
                count += 1
                assert len(str(refusal)) < 600 and "\n" not in str(refusal)
    assert count > 150


PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "published_configs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_of_a_published_model_is_its_size(name):
    """Of SmolLM2, Pythia, Qwen2.5, Gemma, flan-T5 and others: every attribute that theirs has, old ones too."""
    family, _, size = name.partition(",")
    found = read(PUBLISHED[name])
    wanted = FAMILIES[family].SIZES[size]
    assert {field: found[field] for field in wanted} == wanted and found["family"] == family
    section = config.from_theirs(PUBLISHED[name]).model
    assert config.from_theirs(config.to_theirs(section)).model == section


def test_every_family_has_a_published_config():
    assert {name.partition(",")[0] for name in PUBLISHED} == set(FAMILIES)
