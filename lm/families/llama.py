"""Llama (Touvron et al. 2023, arXiv 2307.09288; Dubey et al. 2024, arXiv 2407.21783) and SmolLM2 of its shape."""

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

SIZES = {
    "135m": {  # SmolLM2-135M
        "layers": 30,
        "width": 576,
        "heads": 9,
        "kv_heads": 3,
        "feedforward_width": 1536,
        "context": 2048,
        "vocabulary": 49152,
        "tied": True,
        "rotary_base": 100000.0,
    },
    "1.1b": {  # TinyLlama-1.1B
        "layers": 22,
        "width": 2048,
        "heads": 32,
        "kv_heads": 4,
        "feedforward_width": 5632,
        "context": 2048,
        "vocabulary": 32000,
    },
    "7b": {  # Llama 2 7B
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 32,
        "feedforward_width": 11008,
        "context": 4096,
        "vocabulary": 32000,
    },
    "8b": {  # Llama 3 8B
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "feedforward_width": 14336,
        "context": 8192,
        "vocabulary": 128256,
        "rotary_base": 500000.0,
    },
}

# (our path, their tensor with {layer}, how theirs becomes ours); see lm/weights/layout.py.
WEIGHTS = (
    ("embed/embedding", "model.embed_tokens.weight", "vocabulary"),
    ("decoder/block/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight", "same"),
    ("decoder/block/attention/query/kernel", "model.layers.{layer}.self_attn.q_proj.weight", "transpose"),
    ("decoder/block/attention/key/kernel", "model.layers.{layer}.self_attn.k_proj.weight", "transpose"),
    ("decoder/block/attention/value/kernel", "model.layers.{layer}.self_attn.v_proj.weight", "transpose"),
    ("decoder/block/attention/out/kernel", "model.layers.{layer}.self_attn.o_proj.weight", "transpose"),
    ("decoder/block/feedforward_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight", "same"),
    ("decoder/block/feedforward/gate/kernel", "model.layers.{layer}.mlp.gate_proj.weight", "transpose"),
    ("decoder/block/feedforward/in/kernel", "model.layers.{layer}.mlp.up_proj.weight", "transpose"),
    ("decoder/block/feedforward/out/kernel", "model.layers.{layer}.mlp.down_proj.weight", "transpose"),
    ("decoder/norm/scale", "model.norm.weight", "same"),
    ("head/kernel", "lm_head.weight", "head"),
)
