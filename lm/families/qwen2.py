"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv 2407.10671, table 1; arXiv 2412.15115): biases of q, k and v alone."""

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
