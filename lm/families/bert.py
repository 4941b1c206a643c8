"""BERT (Devlin et al. 2019, arXiv 1810.04805, §3), and MiniLM of its shape (Wang et al. 2020, arXiv 2002.10957)."""

from lm.families.base import ACTIVATIONS, Attribute, Labels, Layout, Only, Silent, Weight

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
    """Return the rows of the blocks and of what comes before them; `prefix` is what their names begin with."""
    layer = f"{prefix}encoder.layer.{{layer}}"
    maps = {
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "feedforward/in": "intermediate.dense",
        "feedforward/out": "output.dense",
    }
    norms = {"attention_norm": "attention.output.LayerNorm", "feedforward_norm": "output.LayerNorm"}
    return (
        Weight("embed/embedding", f"{prefix}embeddings.word_embeddings.weight", "vocabulary"),
        Weight("positions/embedding", f"{prefix}embeddings.position_embeddings.weight"),
        Weight("types/embedding", f"{prefix}embeddings.token_type_embeddings.weight"),
        Weight("embed_norm/scale", f"{prefix}embeddings.LayerNorm.weight"),
        Weight("embed_norm/bias", f"{prefix}embeddings.LayerNorm.bias"),
        *(Weight(f"encoder/block/{ours}/kernel", f"{layer}.{name}.weight", "transpose") for ours, name in maps.items()),
        *(Weight(f"encoder/block/{ours}/bias", f"{layer}.{name}.bias") for ours, name in maps.items()),
        *(Weight(f"encoder/block/{ours}/scale", f"{layer}.{name}.weight") for ours, name in norms.items()),
        *(Weight(f"encoder/block/{ours}/bias", f"{layer}.{name}.bias") for ours, name in norms.items()),
    )


ATTRIBUTES = (
    Attribute("hidden_size", "width", 768),
    Attribute("num_hidden_layers", "layers", 12),
    Attribute("num_attention_heads", "heads", 12),
    Attribute("intermediate_size", "feedforward_width", 3072),
    Attribute("type_vocab_size", "token_types", 2),
    Attribute("layer_norm_eps", "norm_epsilon", 1e-12),
    Attribute("tie_word_embeddings", "tied", True),
    Labels(),
    Only("position_embedding_type", "absolute"),
)
OLDER = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))

LAYOUT = Layout(
    model_types=("bert",),
    architectures={
        "BertForMaskedLM": {"head": "masked", "pooler": False},
        "BertModel": {"head": "none", "pooler": True},
        "BertForSequenceClassification": {"head": "classify", "pooler": True},
    },
    attributes=(
        Attribute("vocab_size", "vocabulary", 30522),
        Attribute("max_position_embeddings", "context", 512),
        Attribute("hidden_act", "activation", "gelu", values=ACTIVATIONS),
        *ATTRIBUTES,
        Silent(r"directionality|pooler_\w+"),
    ),
    weights=(
        *body("bert."),
        Weight("pooler/kernel", "bert.pooler.dense.weight", "transpose"),
        Weight("pooler/bias", "bert.pooler.dense.bias"),
        Weight("head/dense/kernel", "cls.predictions.transform.dense.weight", "transpose"),
        Weight("head/dense/bias", "cls.predictions.transform.dense.bias"),
        Weight("head/norm/scale", "cls.predictions.transform.LayerNorm.weight"),
        Weight("head/norm/bias", "cls.predictions.transform.LayerNorm.bias"),
        Weight("head/bias", "cls.predictions.bias", "vocabulary", when={"head": "masked"}),
        Weight("head/kernel", "cls.predictions.decoder.weight", "vocabulary transpose", when={"head": "masked"}),
        Weight("head/kernel", "classifier.weight", "transpose", when={"head": "classify"}),
        Weight("head/bias", "classifier.bias", when={"head": "classify"}),
    ),
    aliases=(
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    prefix="bert.",
    # Buffers; and the pooler and head of next sentences, which BERT was published with whatever the architecture says.
    ignored=(r"embeddings\.position_ids$", r"^(bert\.)?pooler\.", r"^cls\.seq_relationship\."),
    renamed=OLDER,
)
