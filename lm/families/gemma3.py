"""Gemma 3's text decoders (Gemma Team 2025, arXiv 2503.19786): five local layers to a global one, each its base."""

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "unit_offset": True,
    "wiring": "sandwich",
    "scaled_embedding": True,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "rotary_window_base": 10000.0,
    "qk_norm": True,
    "activation": "gelu_tanh",
    "gated": True,
    "bias": False,
    "tied": True,
}

_SMALL = {"windows": (*[512] * 5, 0), "context": 32768, "vocabulary": 262144}
_LARGE = {
    "windows": (*[1024] * 5, 0),
    "context": 131072,
    "vocabulary": 262208,
    "rotary_scaling": "linear",
    "rotary_factor": 8.0,
}
SIZES = {
    "270m": {
        "layers": 18,
        "width": 640,
        "heads": 4,
        "kv_heads": 1,
        "head_width": 256,
        "feedforward_width": 2048,
        **_SMALL,
    },
    "1b": {
        "layers": 26,
        "width": 1152,
        "heads": 4,
        "kv_heads": 1,
        "head_width": 256,
        "feedforward_width": 6912,
        **_SMALL,
    },
    "4b": {
        "layers": 34,
        "width": 2560,
        "heads": 8,
        "kv_heads": 4,
        "head_width": 256,
        "feedforward_width": 10240,
        **_LARGE,
    },
    "12b": {
        "layers": 48,
        "width": 3840,
        "heads": 16,
        "kv_heads": 8,
        "head_width": 256,
        "feedforward_width": 15360,
        **_LARGE,
    },
    "27b": {
        "layers": 62,
        "width": 5376,
        "heads": 32,
        "kv_heads": 16,
        "head_width": 128,
        "feedforward_width": 21504,
        "attention_scale": 168**-0.5,  # 1 / √(width / heads), not 1 / √head_width
        **_LARGE,
    },
}
