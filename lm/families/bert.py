"""BERT (Devlin et al. 2019, arXiv 1810.04805, §3) and what has its shape: MiniLM (Wang et al. 2020, arXiv 2002.10957)."""

from lm.families.base import ACTIVATIONS, Attribute, Labels, Layout, Only, Weight

SWITCHES = {
    "architecture": "encoder",
    "wiring": "post",
    "norm": "layer",
    "norm_epsilon": 1e-12,
    "positions": "learned",
    "token_types": 2,
    "embedding_norm": True,
    "activation": "gelu",
    "gated": False,
    "bias": True,
    "head": "masked",
    "tied": True,
}

_BASE = {"layers": 12, "width": 768, "heads": 12, "context": 512}
_LARGE = {"layers": 24, "width": 1024, "heads": 16, "context": 512}
SIZES = {
    "base": {"vocabulary": 30522, **_BASE},
    "base-cased": {"vocabulary": 28996, **_BASE},
    "large": {"vocabulary": 30522, **_LARGE},
    "large-cased": {"vocabulary": 28996, **_LARGE},
    "minilm": {  # all-MiniLM-L6-v2, which is asked for hidden states
        "layers": 6,
        "width": 384,
        "heads": 12,
        "feedforward_width": 1536,
        "context": 512,
        "vocabulary": 30522,
        "head": "none",
        "pooler": True,
    },
}


def body(prefix: str) -> tuple[Weight, ...]:
    """Return the rows of the blocks and of what comes before them, their names beginning so."""
    layer = f"{prefix}.encoder.layer.{{layer}}"
    maps = {
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "feedforward/in": "intermediate.dense",
        "feedforward/out": "output.dense",
    }
    norms = {"attention_norm": "attention.output.LayerNorm", "feedforward_norm": "output.LayerNorm"}
    embeddings = f"{prefix}.embeddings"
    return (
        Weight("embed/embedding", f"{embeddings}.word_embeddings.weight", "vocabulary"),
        Weight("positions/embedding", f"{embeddings}.position_embeddings.weight"),
        Weight("types/embedding", f"{embeddings}.token_type_embeddings.weight"),
        Weight("embed_norm/scale", f"{embeddings}.LayerNorm.weight"),
        Weight("embed_norm/bias", f"{embeddings}.LayerNorm.bias"),
        *(Weight(f"encoder/block/{ours}/kernel", f"{layer}.{name}.weight", "transpose") for ours, name in maps.items()),
        *(Weight(f"encoder/block/{ours}/bias", f"{layer}.{name}.bias") for ours, name in maps.items()),
        *(Weight(f"encoder/block/{ours}/scale", f"{layer}.{name}.weight") for ours, name in norms.items()),
        *(Weight(f"encoder/block/{ours}/bias", f"{layer}.{name}.bias") for ours, name in norms.items()),
    )
