"""Qwen3 (Yang et al. 2025, arXiv 2505.09388, table 1): queries and keys normalised, no biases."""

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
