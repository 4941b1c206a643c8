"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671, table 1; arXiv 2412.15115): biases of q, k and v alone."""

from lm.families import llama
from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Weight, Windows

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "activation": "silu",
    "gated": True,
    "bias": False,
    "attention_bias": True,
    "tied": False,
}

# Qwen2.5's, where the two differ in the context.
_SMALL = {"context": 32768, "vocabulary": 151936, "tied": True}
SIZES = {
    "0.5b": {"layers": 24, "width": 896, "heads": 14, "kv_heads": 2, "feedforward_width": 4864, **_SMALL},
    "1.5b": {"layers": 28, "width": 1536, "heads": 12, "kv_heads": 2, "feedforward_width": 8960, **_SMALL},
    "3b": {"layers": 36, "width": 2048, "heads": 16, "kv_heads": 2, "feedforward_width": 11008, **_SMALL},
    "7b": {
        "layers": 28,
        "width": 3584,
        "heads": 28,
        "kv_heads": 4,
        "feedforward_width": 18944,
        "context": 131072,
        "vocabulary": 152064,
    },
}

LAYOUT = Layout(
    model_types=("qwen2",),
    architectures={"Qwen2ForCausalLM": {}, "Qwen2Model": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 151936),
        Attribute("max_position_embeddings", "context", 32768),
        Attribute("hidden_size", "width", 4096),
        Attribute("num_hidden_layers", "layers", 32),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", 32),
        Attribute("head_dim", "head_width", None),  # which the class does not have, but its attention reads
        Attribute("intermediate_size", "feedforward_width", 22016),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", False),
        Windows(4096, "above:28", types=True),
        Rotary(10000.0),
        Only("use_mrope", False),
    ),
    weights=(
        *llama.WEIGHTS,
        Weight("decoder/block/attention/query/bias", "model.layers.{layer}.self_attn.q_proj.bias"),
        Weight("decoder/block/attention/key/bias", "model.layers.{layer}.self_attn.k_proj.bias"),
        Weight("decoder/block/attention/value/bias", "model.layers.{layer}.self_attn.v_proj.bias"),
    ),
    aliases=llama.LAYOUT.aliases,
    prefix="model.",
    ignored=llama.LAYOUT.ignored,
)
