"""How llama.cpp writes each model type of Hugging Face into a GGUF file: rows of data, read both ways.

The names are those of the gguf library's TensorNameMap; what is done to the tensors is what llama.cpp's
convert_hf_to_gguf.py does, and its C++ undoes. To add a model type, add a Form to FORMS.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Field(NamedTuple):
    """Metadata `{architecture}.{key}` is the attribute of config.json; a count, unless `is_number` says a real number.

    absent: what a file that lacks it means; None: no file lacks it. newer: the attribute's name in Transformers 5.
    """

    key: str
    attribute: str
    is_number: bool = False
    absent: float | None = None
    newer: str = ""


class Row(NamedTuple):
    """Their tensor is Hugging Face's; {layer} counts blocks, {expert} what lies along the first axis of theirs.

    how: `queries` and `keys`: a head's two halves, which rotary positions turn together, lie in turns in theirs.
    `one`: theirs is 1 + weight. `transpose`: theirs is (outputs, inputs). Nothing: the same.
    """

    theirs: str
    name: str
    how: str = ""


class Form(NamedTuple):
    """One model type.

    architecture: general.architecture of the file.
    fields: what metadata and config.json both say.
    fixed: attribute → the value that models of this architecture have, and the file does not say.
    rows: the tensors. A model may lack some: biases, and the head where it is tied.
    repeats: whether files may have a head that repeats the embedding; any other model with a head is untied.
    windows: every how many layers one sees the whole text, where the others see attention.sliding_window; 0: all do.
    scaled: the number of layers of the one model whose queries are scaled by width / heads, not by the head's width.
    """

    architecture: str
    fields: tuple[Field, ...]
    fixed: Mapping[str, Any]
    rows: tuple[Row, ...]
    repeats: bool = False
    windows: int = 0
    scaled: int | None = None


_FIELDS = (
    Field("context_length", "max_position_embeddings"),
    Field("embedding_length", "hidden_size"),
    Field("block_count", "num_hidden_layers"),
    Field("feed_forward_length", "intermediate_size"),
    Field("attention.head_count", "num_attention_heads"),
    Field("attention.head_count_kv", "num_key_value_heads"),
    Field("attention.layer_norm_rms_epsilon", "rms_norm_eps", is_number=True),
    Field("rope.freq_base", "rope_theta", is_number=True, absent=10000.0),
)
_EXPERTS = (Field("expert_count", "num_local_experts"), Field("expert_used_count", "num_experts_per_tok"))
_MANY_EXPERTS = (
    Field("expert_count", "num_experts", newer="num_local_experts"),
    Field("expert_used_count", "num_experts_per_tok"),
    Field("expert_feed_forward_length", "moe_intermediate_size"),
)
_WINDOW = Field("attention.sliding_window", "sliding_window")

_ENDS = (
    Row("token_embd.weight", "model.embed_tokens.weight"),
    Row("output.weight", "lm_head.weight"),
)
_ATTENTION = (
    Row("blk.{layer}.attn_q.weight", "model.layers.{layer}.self_attn.q_proj.weight"),
    Row("blk.{layer}.attn_k.weight", "model.layers.{layer}.self_attn.k_proj.weight"),
    Row("blk.{layer}.attn_v.weight", "model.layers.{layer}.self_attn.v_proj.weight"),
    Row("blk.{layer}.attn_output.weight", "model.layers.{layer}.self_attn.o_proj.weight"),
)
_BIASES = (
    Row("blk.{layer}.attn_q.bias", "model.layers.{layer}.self_attn.q_proj.bias"),
    Row("blk.{layer}.attn_k.bias", "model.layers.{layer}.self_attn.k_proj.bias"),
    Row("blk.{layer}.attn_v.bias", "model.layers.{layer}.self_attn.v_proj.bias"),
)
_INTERLEAVED = (
    _ATTENTION[0]._replace(how="queries"),
    _ATTENTION[1]._replace(how="keys"),
    *_ATTENTION[2:],
)
_FEEDFORWARD = (
    Row("blk.{layer}.ffn_gate.weight", "model.layers.{layer}.mlp.gate_proj.weight"),
    Row("blk.{layer}.ffn_up.weight", "model.layers.{layer}.mlp.up_proj.weight"),
    Row("blk.{layer}.ffn_down.weight", "model.layers.{layer}.mlp.down_proj.weight"),
)
_MIXTURE = (
    Row("blk.{layer}.ffn_gate_inp.weight", "model.layers.{layer}.block_sparse_moe.gate.weight"),
    Row("blk.{layer}.ffn_gate_exps.weight", "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"),
    Row("blk.{layer}.ffn_down_exps.weight", "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"),
    Row("blk.{layer}.ffn_up_exps.weight", "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"),
)
_MANY = (
    Row("blk.{layer}.ffn_gate_inp.weight", "model.layers.{layer}.mlp.gate.weight"),
    Row("blk.{layer}.ffn_gate_exps.weight", "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"),
    Row("blk.{layer}.ffn_up_exps.weight", "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"),
    Row("blk.{layer}.ffn_down_exps.weight", "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"),
)
_NORMS = (
    Row("output_norm.weight", "model.norm.weight"),
    Row("blk.{layer}.attn_norm.weight", "model.layers.{layer}.input_layernorm.weight"),
    Row("blk.{layer}.ffn_norm.weight", "model.layers.{layer}.post_attention_layernorm.weight"),
)
_HEAD_NORMS = (
    Row("blk.{layer}.attn_q_norm.weight", "model.layers.{layer}.self_attn.q_norm.weight"),
    Row("blk.{layer}.attn_k_norm.weight", "model.layers.{layer}.self_attn.k_norm.weight"),
)
_SANDWICH = (
    Row("output_norm.weight", "model.norm.weight"),
    Row("blk.{layer}.attn_norm.weight", "model.layers.{layer}.input_layernorm.weight"),
    Row("blk.{layer}.post_attention_norm.weight", "model.layers.{layer}.post_attention_layernorm.weight"),
    Row("blk.{layer}.ffn_norm.weight", "model.layers.{layer}.pre_feedforward_layernorm.weight"),
    Row("blk.{layer}.post_ffw_norm.weight", "model.layers.{layer}.post_feedforward_layernorm.weight"),
)
_one = lambda rows: tuple(row._replace(how="one") for row in rows)

_SILU = {"hidden_act": "silu"}
_LLAMA = Form(
    "llama",
    _FIELDS,
    {**_SILU, "attention_bias": False, "mlp_bias": False},
    (*_ENDS, *_INTERLEAVED, *_FEEDFORWARD, *_NORMS),
)
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}

# model_type of config.json → Form. Of two with one architecture the file's experts decide, else the first is read.
FORMS = {
    "llama": _LLAMA,
    "mistral": _LLAMA._replace(fixed=_SILU),
    "mixtral": Form("llama", (*_FIELDS, *_EXPERTS), _SILU, (*_ENDS, *_INTERLEAVED, *_MIXTURE, *_NORMS)),
    "qwen2": Form(
        "qwen2",
        _FIELDS,
        {**_SILU, "use_sliding_window": False},
        (*_ENDS, *_ATTENTION, *_BIASES, *_FEEDFORWARD, *_NORMS),
    ),
    "qwen3": Form(
        "qwen3",
        _FIELDS,
        {**_SILU, "attention_bias": False, "use_sliding_window": False},
        (*_ENDS, *_ATTENTION, *_HEAD_NORMS, *_FEEDFORWARD, *_NORMS),
    ),
    "qwen3_moe": Form(
        "qwen3moe",
        (*(field for field in _FIELDS if field.key != "feed_forward_length"), *_MANY_EXPERTS),
        {
            **_SILU,
            "attention_bias": False,
            "use_sliding_window": False,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
        (*_ENDS, *_ATTENTION, *_HEAD_NORMS, *_MANY, *_NORMS),
    ),
    "gemma2": Form(
        "gemma2",
        (
            *_FIELDS,
            _WINDOW,
            Field("attn_logit_softcapping", "attn_logit_softcapping", is_number=True),
            Field("final_logit_softcapping", "final_logit_softcapping", is_number=True),
        ),
        _GEMMA,
        (_ENDS[0], *_ATTENTION, *_FEEDFORWARD, *_one(_SANDWICH)),
        windows=2,
        scaled=46,
    ),
    "gemma3_text": Form(
        "gemma3",
        (*_FIELDS, _WINDOW, Field("rope.freq_base_swa", "rope_local_base_freq", is_number=True, absent=10000.0)),
        {**_GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        (*_ENDS, *_ATTENTION, *_FEEDFORWARD, *_one((*_SANDWICH, *_HEAD_NORMS))),
        windows=6,
        scaled=62,
    ),
    "gpt2": Form(
        "gpt2",
        (
            Field("context_length", "n_positions"),
            Field("embedding_length", "n_embd"),
            Field("block_count", "n_layer"),
            Field("feed_forward_length", "n_inner"),
            Field("attention.head_count", "n_head"),
            Field("attention.layer_norm_epsilon", "layer_norm_epsilon", is_number=True),
        ),
        {"activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        (
            Row("token_embd.weight", "transformer.wte.weight"),
            Row("position_embd.weight", "transformer.wpe.weight"),
            Row("output.weight", "lm_head.weight"),
            Row("output_norm.weight", "transformer.ln_f.weight"),
            Row("output_norm.bias", "transformer.ln_f.bias"),
            Row("blk.{layer}.attn_norm.weight", "transformer.h.{layer}.ln_1.weight"),
            Row("blk.{layer}.attn_norm.bias", "transformer.h.{layer}.ln_1.bias"),
            Row("blk.{layer}.attn_qkv.weight", "transformer.h.{layer}.attn.c_attn.weight", "transpose"),
            Row("blk.{layer}.attn_qkv.bias", "transformer.h.{layer}.attn.c_attn.bias"),
            Row("blk.{layer}.attn_output.weight", "transformer.h.{layer}.attn.c_proj.weight", "transpose"),
            Row("blk.{layer}.attn_output.bias", "transformer.h.{layer}.attn.c_proj.bias"),
            Row("blk.{layer}.ffn_norm.weight", "transformer.h.{layer}.ln_2.weight"),
            Row("blk.{layer}.ffn_norm.bias", "transformer.h.{layer}.ln_2.bias"),
            Row("blk.{layer}.ffn_up.weight", "transformer.h.{layer}.mlp.c_fc.weight", "transpose"),
            Row("blk.{layer}.ffn_up.bias", "transformer.h.{layer}.mlp.c_fc.bias"),
            Row("blk.{layer}.ffn_down.weight", "transformer.h.{layer}.mlp.c_proj.weight", "transpose"),
            Row("blk.{layer}.ffn_down.bias", "transformer.h.{layer}.mlp.c_proj.bias"),
        ),
        repeats=True,
    ),
}

# Tensors that stay 32-bit in a file of any type, beside all vectors.
PRECISE = ("position_embd.weight", "ffn_gate_inp.weight")

# Metadata of an architecture that may be there with this value alone, and then says nothing.
NEUTRAL = {
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "logit_scale": 1.0,
    "use_parallel_residual": False,
}

# Metadata of an architecture that never changes what a model says; a width of what no layer has is some.
SILENT = ("rope.scaling.finetuned", "tensor_data_layout", "feed_forward_length")
