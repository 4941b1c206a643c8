"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745) and Pythia of its shape (Biderman et al. 2023, arXiv 2304.01373)."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Weight

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

_ATTENTION = "gpt_neox.layers.{layer}.attention"
_QUERY_KEY_VALUE = f"{_ATTENTION}.query_key_value"
_FEEDFORWARD = "gpt_neox.layers.{layer}.mlp"

LAYOUT = Layout(
    model_types=("gpt_neox",),
    architectures={"GPTNeoXForCausalLM": {}, "GPTNeoXModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 50432),
        Attribute("max_position_embeddings", "context", 2048),
        Attribute("hidden_size", "width", 6144),
        Attribute("num_hidden_layers", "layers", 44),
        Attribute("num_attention_heads", "heads", 64),
        Attribute("intermediate_size", "feedforward_width", 24576),
        Attribute("hidden_act", "activation", "gelu", values=ACTIVATIONS),
        Attribute("layer_norm_eps", "norm_epsilon", 1e-5),
        Attribute("use_parallel_residual", "wiring", True, values={True: "parallel_norms", False: "pre"}),
        Attribute("tie_word_embeddings", "tied", False),
        Only("attention_bias", True),
        Rotary(10000.0, older=("rotary_emb_base",), share=0.25, shares=("rotary_pct",)),
    ),
    weights=(
        Weight("embed/embedding", "gpt_neox.embed_in.weight", "vocabulary"),
        Weight("decoder/block/attention_norm/scale", "gpt_neox.layers.{layer}.input_layernorm.weight"),
        Weight("decoder/block/attention_norm/bias", "gpt_neox.layers.{layer}.input_layernorm.bias"),
        Weight("decoder/block/attention/query/kernel", f"{_QUERY_KEY_VALUE}.weight", "transpose grouped"),
        Weight("decoder/block/attention/query/bias", f"{_QUERY_KEY_VALUE}.bias", "grouped"),
        Weight("decoder/block/attention/key/kernel", f"{_QUERY_KEY_VALUE}.weight", "transpose grouped"),
        Weight("decoder/block/attention/key/bias", f"{_QUERY_KEY_VALUE}.bias", "grouped"),
        Weight("decoder/block/attention/value/kernel", f"{_QUERY_KEY_VALUE}.weight", "transpose grouped"),
        Weight("decoder/block/attention/value/bias", f"{_QUERY_KEY_VALUE}.bias", "grouped"),
        Weight("decoder/block/attention/out/kernel", f"{_ATTENTION}.dense.weight", "transpose"),
        Weight("decoder/block/attention/out/bias", f"{_ATTENTION}.dense.bias"),
        Weight("decoder/block/feedforward_norm/scale", "gpt_neox.layers.{layer}.post_attention_layernorm.weight"),
        Weight("decoder/block/feedforward_norm/bias", "gpt_neox.layers.{layer}.post_attention_layernorm.bias"),
        Weight("decoder/block/feedforward/in/kernel", f"{_FEEDFORWARD}.dense_h_to_4h.weight", "transpose"),
        Weight("decoder/block/feedforward/in/bias", f"{_FEEDFORWARD}.dense_h_to_4h.bias"),
        Weight("decoder/block/feedforward/out/kernel", f"{_FEEDFORWARD}.dense_4h_to_h.weight", "transpose"),
        Weight("decoder/block/feedforward/out/bias", f"{_FEEDFORWARD}.dense_4h_to_h.bias"),
        Weight("decoder/norm/scale", "gpt_neox.final_layer_norm.weight"),
        Weight("decoder/norm/bias", "gpt_neox.final_layer_norm.bias"),
        Weight("head/kernel", "embed_out.weight", "vocabulary transpose"),
    ),
    aliases=(("embed_out.weight", "gpt_neox.embed_in.weight"),),
    prefix="gpt_neox.",
    ignored=(r"attention\.(masked_)?bias$", r"rotary_emb\.inv_freq$"),
)
