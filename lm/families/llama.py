"""Llama (Touvron et al. 2023, arXiv 2307.09288; Dubey et al. 2024, arXiv 2407.21783) and SmolLM2 of its shape."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Silent, Weight

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

_SMOL = {"context": 8192, "vocabulary": 49152, "tied": True}  # SmolLM2
_2 = {"context": 4096, "vocabulary": 32000}
_3 = {"kv_heads": 8, "context": 8192, "vocabulary": 128256, "rotary_base": 500000.0}
_3_1 = {**_3, "context": 131072, "rotary_scaling": "llama3", "rotary_factor": 8.0}
_3_2 = {**_3_1, "rotary_factor": 32.0, "tied": True}
_8B = {"layers": 32, "width": 4096, "heads": 32, "feedforward_width": 14336}
_70B = {"layers": 80, "width": 8192, "heads": 64, "feedforward_width": 28672}
SIZES = {
    "135m": {
        "layers": 30,
        "width": 576,
        "heads": 9,
        "kv_heads": 3,
        "feedforward_width": 1536,
        **_SMOL,
        "rotary_base": 100000.0,
    },
    "360m": {
        "layers": 32,
        "width": 960,
        "heads": 15,
        "kv_heads": 5,
        "feedforward_width": 2560,
        **_SMOL,
        "rotary_base": 100000.0,
    },
    "1.7b": {"layers": 24, "width": 2048, "heads": 32, "feedforward_width": 8192, **_SMOL, "rotary_base": 130000.0},
    "1.1b": {  # TinyLlama-1.1B
        "layers": 22,
        "width": 2048,
        "heads": 32,
        "kv_heads": 4,
        "feedforward_width": 5632,
        "context": 2048,
        "vocabulary": 32000,
    },
    "7b": {"layers": 32, "width": 4096, "heads": 32, "feedforward_width": 11008, **_2},  # Llama 2
    "13b": {"layers": 40, "width": 5120, "heads": 40, "feedforward_width": 13824, **_2},  # Llama 2
    "70b": {**_70B, "kv_heads": 8, **_2},  # Llama 2
    "8b": {**_8B, **_3},  # Llama 3
    "3-70b": {**_70B, **_3},
    "3.1-8b": {**_8B, **_3_1},
    "3.1-70b": {**_70B, **_3_1},
    "3.2-1b": {"layers": 16, "width": 2048, "heads": 32, "feedforward_width": 8192, **_3_2},
    "3.2-3b": {"layers": 28, "width": 3072, "heads": 24, "feedforward_width": 8192, **_3_2},
}

WEIGHTS = (
    Weight("embed/embedding", "model.embed_tokens.weight", "vocabulary"),
    Weight("decoder/block/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight"),
    Weight("decoder/block/attention/query/kernel", "model.layers.{layer}.self_attn.q_proj.weight", "transpose"),
    Weight("decoder/block/attention/key/kernel", "model.layers.{layer}.self_attn.k_proj.weight", "transpose"),
    Weight("decoder/block/attention/value/kernel", "model.layers.{layer}.self_attn.v_proj.weight", "transpose"),
    Weight("decoder/block/attention/out/kernel", "model.layers.{layer}.self_attn.o_proj.weight", "transpose"),
    Weight("decoder/block/feedforward_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
    Weight("decoder/block/feedforward/gate/kernel", "model.layers.{layer}.mlp.gate_proj.weight", "transpose"),
    Weight("decoder/block/feedforward/in/kernel", "model.layers.{layer}.mlp.up_proj.weight", "transpose"),
    Weight("decoder/block/feedforward/out/kernel", "model.layers.{layer}.mlp.down_proj.weight", "transpose"),
    Weight("decoder/norm/scale", "model.norm.weight"),
    Weight("head/kernel", "lm_head.weight", "vocabulary transpose"),
)

LAYOUT = Layout(
    model_types=("llama",),
    architectures={"LlamaForCausalLM": {}, "LlamaModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 32000),
        Attribute("max_position_embeddings", "context", 2048),
        Attribute("hidden_size", "width", 4096),
        Attribute("num_hidden_layers", "layers", 32),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", None),
        Attribute("head_dim", "head_width", None),
        Attribute("intermediate_size", "feedforward_width", 11008),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", False),
        Only("attention_bias", False),
        Only("mlp_bias", False),
        Rotary(10000.0),
        Only("rope_interleaved", False),
        Silent(r"is_llama_config"),
    ),
    weights=WEIGHTS,
    aliases=(("lm_head.weight", "model.embed_tokens.weight"),),
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
)
