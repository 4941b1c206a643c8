"""Gemma 2 (Gemma Team 2024, arXiv 2408.00118, table 1): norms around branches, soft caps, every second layer local."""

from lm.families import llama
from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Silent, Weight, Windows

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "unit_offset": True,
    "wiring": "sandwich",
    "scaled_embedding": True,
    "positions": "rotary",
    "rotary_base": 10000.0,
    "attention_soft_cap": 50.0,
    "logits_soft_cap": 30.0,
    "activation": "gelu_tanh",
    "gated": True,
    "bias": False,
    "tied": True,
}

_COMMON = {"windows": (4096, 0), "context": 8192, "vocabulary": 256000}
SIZES = {
    "2b": {
        "layers": 26,
        "width": 2304,
        "heads": 8,
        "kv_heads": 4,
        "head_width": 256,
        "feedforward_width": 9216,
        **_COMMON,
    },
    "9b": {
        "layers": 42,
        "width": 3584,
        "heads": 16,
        "kv_heads": 8,
        "head_width": 256,
        "feedforward_width": 14336,
        **_COMMON,
    },
    "27b": {
        "layers": 46,
        "width": 4608,
        "heads": 32,
        "kv_heads": 16,
        "head_width": 128,
        "feedforward_width": 36864,
        "attention_scale": 144**-0.5,  # 1 / √(width / heads), not 1 / √head_width
        **_COMMON,
    },
}

_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh"} | ACTIVATIONS  # their own word first

WEIGHTS = (
    *(row for row in llama.WEIGHTS if "_norm/" not in row.path),
    Weight("decoder/block/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight"),
    Weight("decoder/block/attention_out_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
    Weight("decoder/block/feedforward_norm/scale", "model.layers.{layer}.pre_feedforward_layernorm.weight"),
    Weight("decoder/block/feedforward_out_norm/scale", "model.layers.{layer}.post_feedforward_layernorm.weight"),
)

LAYOUT = Layout(
    model_types=("gemma2",),
    architectures={"Gemma2ForCausalLM": {}, "Gemma2Model": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 256000),
        Attribute("max_position_embeddings", "context", 8192),
        Attribute("hidden_size", "width", 2304),
        Attribute("num_hidden_layers", "layers", 26),
        Attribute("num_attention_heads", "heads", 8),
        Attribute("num_key_value_heads", "kv_heads", 4),
        Attribute("head_dim", "head_width", 256),
        Attribute("intermediate_size", "feedforward_width", 9216),
        Attribute("hidden_activation", "activation", "gelu_pytorch_tanh", values=_ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", True),
        Attribute("query_pre_attn_scalar", "attention_scale", 256, power=-0.5),
        Attribute("attn_logit_softcapping", "attention_soft_cap", 50.0, null=0.0),
        Attribute("final_logit_softcapping", "logits_soft_cap", 30.0, null=0.0),
        Only("attention_bias", False),
        Attribute("use_bidirectional_attention", "architecture", None, values={False: "decoder"}, null="decoder"),
        Windows(4096, "not:2", types=True),
        Rotary(10000.0),
        Silent("hidden_act|cache_implementation"),
    ),
    weights=WEIGHTS,
    aliases=llama.LAYOUT.aliases,
    prefix="model.",
    ignored=llama.LAYOUT.ignored,
)
