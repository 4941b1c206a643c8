"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745) and Pythia of its shape (Biderman et al. 2023, arXiv 2304.01373)."""

SWITCHES = {
    "norm": "layer",
    "norm_epsilon": 1e-5,
    "wiring": "parallel_norms",
    "positions": "rotary",
    "rotary_base": 10000.0,
    "rotary_share": 0.25,
    "activation": "gelu",
    "gated": False,
    "bias": True,
    "tied": False,
}

# Pythia's (table 1 and the published configs), which differ in the padding of one tokenizer's vocabulary.
_PYTHIA = {"context": 2048, "vocabulary": 50304}
SIZES = {
    "70m": {"layers": 6, "width": 512, "heads": 8, **_PYTHIA},
    "160m": {"layers": 12, "width": 768, "heads": 12, **_PYTHIA},
    "410m": {"layers": 24, "width": 1024, "heads": 16, **_PYTHIA},
    "1b": {"layers": 16, "width": 2048, "heads": 8, **_PYTHIA},
    "1.4b": {"layers": 24, "width": 2048, "heads": 16, **_PYTHIA},
    "2.8b": {"layers": 32, "width": 2560, "heads": 32, **_PYTHIA},
    "6.9b": {"layers": 32, "width": 4096, "heads": 32, **_PYTHIA, "vocabulary": 50432},
    "12b": {"layers": 36, "width": 5120, "heads": 40, **_PYTHIA, "vocabulary": 50688},
    "20b": {  # GPT-NeoX-20B
        "layers": 44,
        "width": 6144,
        "heads": 64,
        "context": 2048,
        "vocabulary": 50432,
        "activation": "gelu_tanh",
    },
}
