"""Mistral (Jiang et al. 2023, arXiv 2310.06825): Llama's block with a window in every layer."""

from lm.families import llama
from lm.families.base import ACTIVATIONS, Attribute, Layout, Rotary, Windows

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-5,
    "positions": "rotary",
    "rotary_base": 10000.0,
    "activation": "silu",
    "gated": True,
    "bias": False,
    "tied": False,
}

_7B = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "feedforward_width": 14336, "context": 32768}
SIZES = {
    "7b": {**_7B, "vocabulary": 32000, "windows": (4096,)},  # Mistral-7B-v0.1
    "7b-v0.3": {**_7B, "vocabulary": 32768, "rotary_base": 1e6},  # which has no window
}

LAYOUT = Layout(
    model_types=("mistral",),
    architectures={"MistralForCausalLM": {}, "MistralModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 32000),
        Attribute("max_position_embeddings", "context", 131072),
        Attribute("hidden_size", "width", 4096),
        Attribute("num_hidden_layers", "layers", 32),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", 8),
        Attribute("head_dim", "head_width", None),
        Attribute("intermediate_size", "feedforward_width", 14336),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", False),
        Windows(4096, "all"),
        Rotary(10000.0),
    ),
    weights=llama.WEIGHTS,
    aliases=llama.LAYOUT.aliases,
    prefix="model.",
    ignored=llama.LAYOUT.ignored,
)
