"""T5 (Raffel et al. 2020, arXiv 1910.10683) and T5 v1.1, whose shape Flan-T5 has (Chung et al. 2022, 2210.11416)."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Weight, Words

SWITCHES = {
    "architecture": "encoder_decoder",
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "positions": "relative",
    "attention_scale": 1.0,
    "activation": "relu",
    "gated": False,
    "bias": False,
    "tied": True,
    "scaled_head": True,
}

_COMMON = {"head_width": 64, "context": 512, "vocabulary": 32128}
_V1_1 = {"activation": "gelu_tanh", "gated": True, "tied": False}  # released_checkpoints.md of T5's code
SIZES = {
    "small": {**_COMMON, "layers": 6, "width": 512, "heads": 8, "feedforward_width": 2048},
    "base": {**_COMMON, "layers": 12, "width": 768, "heads": 12, "feedforward_width": 3072},
    "large": {**_COMMON, "layers": 24, "width": 1024, "heads": 16, "feedforward_width": 4096},
    "3b": {**_COMMON, "layers": 24, "width": 1024, "heads": 32, "head_width": 128, "feedforward_width": 16384},
    "v1.1-small": {**_COMMON, **_V1_1, "layers": 8, "width": 512, "heads": 6, "feedforward_width": 1024},
    "v1.1-base": {**_COMMON, **_V1_1, "layers": 12, "width": 768, "heads": 12, "feedforward_width": 2048},
    "v1.1-large": {**_COMMON, **_V1_1, "layers": 24, "width": 1024, "heads": 16, "feedforward_width": 2816},
    "v1.1-xl": {**_COMMON, **_V1_1, "layers": 24, "width": 2048, "heads": 32, "feedforward_width": 5120},
}


def _stack(stack: str, feedforward: int) -> tuple[Weight, ...]:
    """Return the rows of a stack but its cross-attention; `feedforward` is the number of that branch in a block."""
    ours, block = f"{stack}/block", f"{stack}.block.{{layer}}.layer"
    wide = f"{block}.{feedforward}.DenseReluDense"
    return (
        Weight(f"{ours}/attention_norm/scale", f"{block}.0.layer_norm.weight"),
        *_attention(f"{ours}/attention", f"{block}.0.SelfAttention"),
        Weight(f"{ours}/feedforward_norm/scale", f"{block}.{feedforward}.layer_norm.weight"),
        Weight(f"{ours}/feedforward/in/kernel", f"{wide}.wi.weight", "transpose", when={"gated": False}),
        Weight(f"{ours}/feedforward/gate/kernel", f"{wide}.wi_0.weight", "transpose"),
        Weight(f"{ours}/feedforward/in/kernel", f"{wide}.wi_1.weight", "transpose", when={"gated": True}),
        Weight(f"{ours}/feedforward/out/kernel", f"{wide}.wo.weight", "transpose"),
        Weight(f"{stack}/norm/scale", f"{stack}.final_layer_norm.weight"),
    )


def _attention(ours: str, name: str) -> tuple[Weight, ...]:
    maps = {"query": "q", "key": "k", "value": "v", "out": "o"}
    return tuple(Weight(f"{ours}/{one}/kernel", f"{name}.{other}.weight", "transpose") for one, other in maps.items())


_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"

LAYOUT = Layout(
    model_types=("t5",),
    architectures={"T5ForConditionalGeneration": {"head": "language"}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 32128),
        Attribute("n_positions", "context", 512),
        Attribute("d_model", "width", 512),
        Attribute("d_kv", "head_width", 64),
        Attribute("d_ff", "feedforward_width", 2048),
        Attribute("num_layers", "encoder_layers", 6),
        Attribute("num_decoder_layers", "layers", None, like="encoder_layers"),
        Attribute("num_heads", "heads", 8),
        Attribute("relative_attention_num_buckets", "relative_buckets", 32),
        Attribute("relative_attention_max_distance", "relative_distance", 128),
        Attribute("layer_norm_epsilon", "norm_epsilon", 1e-6),
        Words(
            "feed_forward_proj",
            "relu",
            {
                "relu": {"activation": "relu", "gated": False},
                "gated-gelu": {"activation": "gelu_tanh", "gated": True},
                "gelu": {"activation": "gelu", "gated": False},
                "gelu_new": {"activation": "gelu_tanh", "gated": False},
                "gated-gelu_new": {"activation": "gelu_tanh", "gated": True},
                "gated-relu": {"activation": "relu", "gated": True},
                "silu": {"activation": "silu", "gated": False},
                "gated-silu": {"activation": "silu", "gated": True},
            },
        ),
        Attribute("dense_act_fn", "activation", None, values=ACTIVATIONS, like="activation"),
        Attribute("is_gated_act", "gated", None, like="gated"),
        Attribute("tie_word_embeddings", "tied", True),
        Attribute("scale_decoder_outputs", "scaled_head", None, like="tied"),
        Only("is_encoder_decoder", True),
    ),
    weights=(
        Weight("embed/embedding", "shared.weight", "vocabulary"),
        *_stack("encoder", 1),
        Weight("encoder_positions/embedding", f"encoder.{_BIAS}"),
        *_stack("decoder", 2),
        Weight("decoder/block/cross_attention_norm/scale", "decoder.block.{layer}.layer.1.layer_norm.weight"),
        *_attention("decoder/block/cross_attention", "decoder.block.{layer}.layer.1.EncDecAttention"),
        Weight("positions/embedding", f"decoder.{_BIAS}"),
        Weight("head/kernel", "lm_head.weight", "vocabulary transpose"),
    ),
    aliases=(
        ("encoder.embed_tokens.weight", "shared.weight"),
        ("decoder.embed_tokens.weight", "shared.weight"),
        ("lm_head.weight", "shared.weight"),
    ),
    ignored=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",),
    untied="lm_head.weight",
)
