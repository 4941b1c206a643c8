"""Mixtral (Jiang et al. 2024, "Mixtral of Experts", arXiv 2401.04088, table 1): Mistral's decoder with experts."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Rotary, Silent, Weight, Windows

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

_FEEDFORWARD = "model.layers.{layer}.block_sparse_moe"
_EXPERT = f"{_FEEDFORWARD}.experts.{{expert}}"

LAYOUT = Layout(
    model_types=("mixtral",),
    architectures={"MixtralForCausalLM": {}, "MixtralModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 32000),
        Attribute("max_position_embeddings", "context", 131072),
        Attribute("hidden_size", "width", 4096),
        Attribute("num_hidden_layers", "layers", 32),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", 8),
        Attribute("head_dim", "head_width", None),
        Attribute("intermediate_size", "feedforward_width", 14336),
        Attribute("num_local_experts", "experts", 8, older=("num_experts",)),
        Attribute("num_experts_per_tok", "experts_per_token", 2),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-5),
        Attribute("tie_word_embeddings", "tied", False),
        Windows(None, "all"),
        Rotary(1000000.0),
        Silent(r"router_aux_loss_coef|router_jitter_noise"),
    ),
    weights=(
        Weight("embed/embedding", "model.embed_tokens.weight", "vocabulary"),
        Weight("decoder/block/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight"),
        Weight("decoder/block/attention/query/kernel", "model.layers.{layer}.self_attn.q_proj.weight", "transpose"),
        Weight("decoder/block/attention/key/kernel", "model.layers.{layer}.self_attn.k_proj.weight", "transpose"),
        Weight("decoder/block/attention/value/kernel", "model.layers.{layer}.self_attn.v_proj.weight", "transpose"),
        Weight("decoder/block/attention/out/kernel", "model.layers.{layer}.self_attn.o_proj.weight", "transpose"),
        Weight("decoder/block/feedforward_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
        Weight("decoder/block/feedforward/router/kernel", f"{_FEEDFORWARD}.gate.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/gate/kernel", f"{_EXPERT}.w1.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/in/kernel", f"{_EXPERT}.w3.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/out/kernel", f"{_EXPERT}.w2.weight", "transpose"),
        Weight("decoder/norm/scale", "model.norm.weight"),
        Weight("head/kernel", "lm_head.weight", "vocabulary transpose"),
    ),
    aliases=(("lm_head.weight", "model.embed_tokens.weight"),),
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
)
