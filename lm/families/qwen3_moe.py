"""Qwen 3 with experts (Yang et al. 2025, "Qwen3 Technical Report", arXiv 2505.09388, table 2)."""

from lm.families.base import ACTIVATIONS, Attribute, Layout, Only, Rotary, Silent, Weight

SWITCHES = {
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "positions": "rotary",
    "rotary_base": 1000000.0,
    "qk_norm": True,
    "activation": "silu",
    "gated": True,
    "bias": False,
    "tied": False,
    "experts": 8,
    "experts_per_token": 2,
}

_COMMON = {"head_width": 128, "kv_heads": 4, "experts": 128, "experts_per_token": 8, "vocabulary": 151936}
SIZES = {
    "30b-a3b": {
        "layers": 48,
        "width": 2048,
        "heads": 32,
        "feedforward_width": 768,
        "context": 40960,
        **_COMMON,
    },
    "235b-a22b": {
        "layers": 94,
        "width": 4096,
        "heads": 64,
        "feedforward_width": 1536,
        "context": 40960,
        **_COMMON,
    },
}

_FEEDFORWARD = "model.layers.{layer}.mlp"
_EXPERT = f"{_FEEDFORWARD}.experts.{{expert}}"

LAYOUT = Layout(
    model_types=("qwen3_moe",),
    architectures={"Qwen3MoeForCausalLM": {}, "Qwen3MoeModel": {}},
    attributes=(
        Attribute("vocab_size", "vocabulary", 151936),
        Attribute("max_position_embeddings", "context", 32768),
        Attribute("hidden_size", "width", 2048),
        Attribute("num_hidden_layers", "layers", 24),
        Attribute("num_attention_heads", "heads", 32),
        Attribute("num_key_value_heads", "kv_heads", 4),
        Attribute("head_dim", "head_width", None),
        Attribute("moe_intermediate_size", "feedforward_width", 768),
        Attribute("num_experts", "experts", 128, older=("num_local_experts",)),
        Attribute("num_experts_per_tok", "experts_per_token", 8),
        Attribute("norm_topk_prob", "router_normalized", False),
        Attribute("hidden_act", "activation", "silu", values=ACTIVATIONS),
        Attribute("rms_norm_eps", "norm_epsilon", 1e-6),
        Attribute("tie_word_embeddings", "tied", False),
        Only("attention_bias", False),
        Only("decoder_sparse_step", 1),
        Only("mlp_only_layers", [], or_null=True),
        Only("use_sliding_window", False),
        Rotary(10000.0),
        Silent(r"sliding_window|max_window_layers|intermediate_size|router_aux_loss_coef"),
    ),
    weights=(
        Weight("embed/embedding", "model.embed_tokens.weight", "vocabulary"),
        Weight("decoder/block/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight"),
        Weight("decoder/block/attention/query/kernel", "model.layers.{layer}.self_attn.q_proj.weight", "transpose"),
        Weight("decoder/block/attention/key/kernel", "model.layers.{layer}.self_attn.k_proj.weight", "transpose"),
        Weight("decoder/block/attention/value/kernel", "model.layers.{layer}.self_attn.v_proj.weight", "transpose"),
        Weight("decoder/block/attention/out/kernel", "model.layers.{layer}.self_attn.o_proj.weight", "transpose"),
        Weight("decoder/block/attention/query_norm/scale", "model.layers.{layer}.self_attn.q_norm.weight"),
        Weight("decoder/block/attention/key_norm/scale", "model.layers.{layer}.self_attn.k_norm.weight"),
        Weight("decoder/block/feedforward_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
        Weight("decoder/block/feedforward/router/kernel", f"{_FEEDFORWARD}.gate.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/gate/kernel", f"{_EXPERT}.gate_proj.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/in/kernel", f"{_EXPERT}.up_proj.weight", "transpose"),
        Weight("decoder/block/feedforward/experts/out/kernel", f"{_EXPERT}.down_proj.weight", "transpose"),
        Weight("decoder/norm/scale", "model.norm.weight"),
        Weight("head/kernel", "lm_head.weight", "vocabulary transpose"),
    ),
    aliases=(("lm_head.weight", "model.embed_tokens.weight"),),
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
)
