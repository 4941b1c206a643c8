"""Mistral (Jiang et al. 2023, arXiv 2310.06825): Llama's block with a window in every layer."""

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
