"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's shape without pairs of texts, trained for longer."""

from lm.families import bert
from lm.families.base import Attribute, Layout, Only, Weight

SWITCHES = bert.SWITCHES | {"norm_epsilon": 1e-5, "token_types": 1, "position_offset": 2}

_COMMON = {"context": 512, "vocabulary": 50265}
SIZES = {
    "base": {"layers": 12, "width": 768, "heads": 12, **_COMMON},
    "large": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
}

LAYOUT = Layout(
    model_types=("roberta",),
    architectures={
        "RobertaForMaskedLM": {"head": "masked", "pooler": False},
        "RobertaModel": {"head": "none", "pooler": True},
        "RobertaForSequenceClassification": {"head": "classify", "pooler": True},
    },
    attributes=(
        Attribute("vocab_size", "vocabulary", 50265),
        Attribute("max_position_embeddings", "context", 512, plus=2),
        Attribute("hidden_act", "activation", "gelu", values={"gelu": "gelu"}),  # the head's is this, whatever it says
        *bert.ATTRIBUTES,
        Only("pad_token_id", 1),  # positions begin behind it
    ),
    weights=(
        *bert.body("roberta."),
        Weight("pooler/kernel", "roberta.pooler.dense.weight", "transpose", when={"head": "none"}),
        Weight("pooler/bias", "roberta.pooler.dense.bias", when={"head": "none"}),
        Weight("pooler/kernel", "classifier.dense.weight", "transpose", when={"head": "classify"}),
        Weight("pooler/bias", "classifier.dense.bias", when={"head": "classify"}),
        Weight("head/dense/kernel", "lm_head.dense.weight", "transpose"),
        Weight("head/dense/bias", "lm_head.dense.bias"),
        Weight("head/norm/scale", "lm_head.layer_norm.weight"),
        Weight("head/norm/bias", "lm_head.layer_norm.bias"),
        Weight("head/bias", "lm_head.bias", "vocabulary", when={"head": "masked"}),
        Weight("head/kernel", "lm_head.decoder.weight", "vocabulary transpose", when={"head": "masked"}),
        Weight("head/kernel", "classifier.out_proj.weight", "transpose", when={"head": "classify"}),
        Weight("head/bias", "classifier.out_proj.bias", when={"head": "classify"}),
    ),
    aliases=(
        ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
        ("lm_head.decoder.bias", "lm_head.bias"),
    ),
    prefix="roberta.",
    ignored=(r"embeddings\.position_ids$", r"^(roberta\.)?pooler\."),
    renamed=bert.OLDER,
)
