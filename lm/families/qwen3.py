"""Qwen3 (Yang et al. 2025, arXiv 2505.09388, table 1): queries and keys normalised, no biases."""

from lm.families import llama
from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Weight, Windows

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "qk_norm": True,
    "activation": "silu",
    "gated": True,
    "bias": False,
    "tied": False,
}

_COMMON = {"kv_heads": 8, "head_width": 128, "context": 40960, "vocabulary": 151936}
SIZES = {
    "0.6b": {"layers": 28, "width": 1024, "heads": 16, "feedforward_width": 3072, "tied": True, **_COMMON},
    "1.7b": {"layers": 28, "width": 2048, "heads": 16, "feedforward_width": 6144, "tied": True, **_COMMON},
    "4b": {"layers": 36, "width": 2560, "heads": 32, "feedforward_width": 9728, "tied": True, **_COMMON},
    "8b": {"layers": 36, "width": 4096, "heads": 32, "feedforward_width": 12288, **_COMMON},
    "14b": {"layers": 40, "width": 5120, "heads": 40, "feedforward_width": 17408, **_COMMON},
    "32b": {"layers": 64, "width": 5120, "heads": 64, "feedforward_width": 25600, **_COMMON},
}

LAYOUT = Layout(
    model_types=("qwen3",),
    architectures={"Qwen3ForCausalLM": {}, "Qwen3Model": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 151936),
        Attribute("max_position_embeddings", "context", 32768),
        Attribute("hidden_size", "width", 4096),
        Attribute("num_hidden_layers", "layers", 32),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", 32),
        Attribute("head_dim", "head_width", 128),
        Attribute("intermediate_size", "feedforward_width", 22016),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", False),
        Only("attention_bias", False),
        Windows(4096, "above:28", types=True),
        Rotary(10000.0),
    ),
    weights=(
        *llama.WEIGHTS,
        Weight("decoder/block/attention/query_norm/scale", "model.layers.{layer}.self_attn.q_norm.weight"),
        Weight("decoder/block/attention/key_norm/scale", "model.layers.{layer}.self_attn.k_norm.weight"),
    ),
    aliases=llama.LAYOUT.aliases,
    prefix="model.",
    ignored=llama.LAYOUT.ignored,
)
