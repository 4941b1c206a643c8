"""Gemma 2 (Gemma Team 2024, arXiv 2408.00118, table 1): norms around branches, soft caps, every second layer local."""

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
