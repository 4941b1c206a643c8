"""Qwen 3 with experts (Yang et al. 2025, "Qwen3 Technical Report", arXiv 2505.09388, table 2)."""

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
    "experts": 8,
    "experts_per_token": 2,
}

_COMMON = {"head_width": 128, "kv_heads": 4, "experts": 128, "experts_per_token": 8, "vocabulary": 151936}
SIZES = {
    "30b-a3b": {
        "layers": 48,
        "width": 2048,
        "heads": 32,
        "feedforward_width": 768,
        "context": 40960,
        **_COMMON,
    },
    "235b-a22b": {
        "layers": 94,
        "width": 4096,
        "heads": 64,
        "feedforward_width": 1536,
        "context": 40960,
        **_COMMON,
    },
}
