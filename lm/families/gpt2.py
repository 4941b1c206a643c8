"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2)."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Silent, Weight

SWITCHES = {
    "norm": "layer",
    "norm_epsilon": 1e-5,
    "positions": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "bias": True,
    "tied": True,
}

_COMMON = {"context": 1024, "vocabulary": 50257}
SIZES = {
    "124m": {"layers": 12, "width": 768, "heads": 12, **_COMMON},
    "355m": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "774m": {"layers": 36, "width": 1280, "heads": 20, **_COMMON},
    "1.5b": {"layers": 48, "width": 1600, "heads": 25, **_COMMON},
}

LAYOUT = Layout(
    model_types=("gpt2",),
    architectures={"GPT2LMHeadModel": {}, "GPT2Model": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 50257),
        Attribute("n_positions", "context", 1024, older=("n_ctx",)),
        Attribute("n_embd", "width", 768),
        Attribute("n_layer", "layers", 12),
        Attribute("n_head", "heads", 12),
        Attribute("n_inner", "feedforward_width", None),
        Attribute("activation_function", "activation", "gelu_new", values=ACTIVATIONS),
        Attribute("layer_norm_epsilon", "norm_epsilon", 1e-5),
        Attribute("tie_word_embeddings", "tied", True),
        Only("scale_attn_weights", True),
        Only("scale_attn_by_inverse_layer_idx", False),
        Silent(r"summary_\w+|reorder_and_upcast_attn"),
    ),
    weights=(
        Weight("embed/embedding", "transformer.wte.weight", "vocabulary"),
        Weight("positions/embedding", "transformer.wpe.weight"),
        Weight("decoder/block/attention_norm/scale", "transformer.h.{layer}.ln_1.weight"),
        Weight("decoder/block/attention_norm/bias", "transformer.h.{layer}.ln_1.bias"),
        Weight("decoder/block/attention/query/kernel", "transformer.h.{layer}.attn.c_attn.weight", "part"),
        Weight("decoder/block/attention/query/bias", "transformer.h.{layer}.attn.c_attn.bias", "part"),
        Weight("decoder/block/attention/key/kernel", "transformer.h.{layer}.attn.c_attn.weight", "part"),
        Weight("decoder/block/attention/key/bias", "transformer.h.{layer}.attn.c_attn.bias", "part"),
        Weight("decoder/block/attention/value/kernel", "transformer.h.{layer}.attn.c_attn.weight", "part"),
        Weight("decoder/block/attention/value/bias", "transformer.h.{layer}.attn.c_attn.bias", "part"),
        Weight("decoder/block/attention/out/kernel", "transformer.h.{layer}.attn.c_proj.weight"),
        Weight("decoder/block/attention/out/bias", "transformer.h.{layer}.attn.c_proj.bias"),
        Weight("decoder/block/feedforward_norm/scale", "transformer.h.{layer}.ln_2.weight"),
        Weight("decoder/block/feedforward_norm/bias", "transformer.h.{layer}.ln_2.bias"),
        Weight("decoder/block/feedforward/in/kernel", "transformer.h.{layer}.mlp.c_fc.weight"),
        Weight("decoder/block/feedforward/in/bias", "transformer.h.{layer}.mlp.c_fc.bias"),
        Weight("decoder/block/feedforward/out/kernel", "transformer.h.{layer}.mlp.c_proj.weight"),
        Weight("decoder/block/feedforward/out/bias", "transformer.h.{layer}.mlp.c_proj.bias"),
        Weight("decoder/norm/scale", "transformer.ln_f.weight"),
        Weight("decoder/norm/bias", "transformer.ln_f.bias"),
        Weight("head/kernel", "lm_head.weight", "vocabulary transpose"),
    ),
    aliases=(("lm_head.weight", "transformer.wte.weight"),),
    prefix="transformer.",
    ignored=(r"attn\.(masked_)?bias$",),
)
