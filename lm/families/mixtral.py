"""Mixtral (Jiang et al. 2024, "Mixtral of Experts", arXiv 2401.04088, table 1): Mistral's decoder with experts."""

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-5,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "activation": "silu",
    "gated": True,
    "bias": False,
    "tied": False,
    "experts": 8,
    "experts_per_token": 2,
}

SIZES = {
    "8x7b": {
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "feedforward_width": 14336,
        "context": 32768,
        "vocabulary": 32000,
    },
}
