"""Gemma 3's text decoders (Gemma Team 2025, arXiv 2503.19786): five local layers to a global one, each its base."""

from lm.families import gemma2, llama
from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Silent, Weight, Windows

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "unit_offset": True,
    "wiring": "sandwich",
    "scaled_embedding": True,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "rotary_window_base": 10000.0,
    "qk_norm": True,
    "activation": "gelu_tanh",
    "gated": True,
    "bias": False,
    "tied": True,
}

_SMALL = {"windows": (*[512] * 5, 0), "context": 32768, "vocabulary": 262144}
_LARGE = {
    "windows": (*[1024] * 5, 0),
    "context": 131072,
    "vocabulary": 262208,
    "rotary_scaling": "linear",
    "rotary_factor": 8.0,
}
SIZES = {
    "270m": {
        "layers": 18,
        "width": 640,
        "heads": 4,
        "kv_heads": 1,
        "head_width": 256,
        "feedforward_width": 2048,
        **_SMALL,
    },
    "1b": {
        "layers": 26,
        "width": 1152,
        "heads": 4,
        "kv_heads": 1,
        "head_width": 256,
        "feedforward_width": 6912,
        **_SMALL,
    },
    "4b": {
        "layers": 34,
        "width": 2560,
        "heads": 8,
        "kv_heads": 4,
        "head_width": 256,
        "feedforward_width": 10240,
        **_LARGE,
    },
    "12b": {
        "layers": 48,
        "width": 3840,
        "heads": 16,
        "kv_heads": 8,
        "head_width": 256,
        "feedforward_width": 15360,
        **_LARGE,
    },
    "27b": {
        "layers": 62,
        "width": 5376,
        "heads": 32,
        "kv_heads": 16,
        "head_width": 128,
        "feedforward_width": 21504,
        "attention_scale": 168**-0.5,  # 1 / √(width / heads), not 1 / √head_width
        **_LARGE,
    },
}

_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh"} | ACTIVATIONS  # their own word first

LAYOUT = Layout(
    model_types=("gemma3_text",),
    architectures={"Gemma3ForCausalLM": {}, "Gemma3TextModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 262208),
        Attribute("max_position_embeddings", "context", 131072),
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
        Attribute("final_logit_softcapping", "logits_soft_cap", None, null=0.0),
        Only("attn_logit_softcapping", None),  # which their attention passes over
        Only("attention_bias", False),
        Attribute("use_bidirectional_attention", "architecture", False, values={False: "decoder"}, null="decoder"),
        Windows(4096, "not:6", types=True, pattern=True),
        Rotary(1000000.0, window_base=10000.0),
        Silent("cache_implementation|_sliding_window_pattern"),
    ),
    weights=(
        *gemma2.WEIGHTS,
        Weight("decoder/block/attention/query_norm/scale", "model.layers.{layer}.self_attn.q_norm.weight"),
        Weight("decoder/block/attention/key_norm/scale", "model.layers.{layer}.self_attn.k_norm.weight"),
    ),
    aliases=llama.LAYOUT.aliases,
    prefix="model.",
    ignored=llama.LAYOUT.ignored,
)
