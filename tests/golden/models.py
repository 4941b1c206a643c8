"""Tiny published models of every family: name → class and configuration of Transformers, odd sizes, all weights random.

What comes out of them is compared with ours by tests/parity (anew, with torch and transformers) and by
tests/weights/test_golden.py (as make_logits.py wrote it down).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

CONTEXT = 59
VOCABULARY = 61
LENGTHS = (19, 11, 5)  # of the rows of a batch, padded on the right
NEW = 32  # tokens that are generated
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


class Tiny(NamedTuple):
    """A model: its class's name, its configuration's class's name, and what the configuration is given."""

    model: str
    configuration: str
    options: dict[str, Any]


_LLAMA = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "intermediate_size": 40,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "tie_word_embeddings": False,
    **IDS,
}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_positions": CONTEXT,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": 40,
    **IDS,
}
_WINDOWED = {**_LLAMA, "sliding_window": 6}
_QWEN2 = {name: value for name, value in _LLAMA.items() if name != "head_dim"}
_SLIDING_LATE = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
_GEMMA = {**_WINDOWED, "num_hidden_layers": 4, "query_pre_attn_scalar": 7, "tie_word_embeddings": True}
_GEMMA3_ROTARY = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
}
_NEOX = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
    **IDS,
}
_MIXTRAL = {**_LLAMA, "num_hidden_layers": 2, "intermediate_size": 20, "num_local_experts": 5, "sliding_window": 6}
_QWEN3_MOE = {
    **_LLAMA,
    "num_hidden_layers": 2,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,  # rows of a multiple of 16 bytes, for torch
    "norm_topk_prob": True,
}


def _scaled(**scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 500.0, **scaling}}


_LLAMA3 = _scaled(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
_YARN = _scaled(rope_type="yarn", factor=3.0, original_max_position_embeddings=CONTEXT // 3)
_YARN_NUMBERS = {
    "rope_type": "yarn",
    "factor": 4.0,
    "beta_slow": 0.25,
    "beta_fast": 3.0,
    "attention_factor": 1.3,
    "original_max_position_embeddings": CONTEXT // 4,
}

MODELS = {
    "gpt2": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "llama": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA),
    "gpt_neox": Tiny("GPTNeoXForCausalLM", "GPTNeoXConfig", _NEOX),
    "mistral": Tiny("MistralForCausalLM", "MistralConfig", _WINDOWED),
    "qwen2": Tiny("Qwen2ForCausalLM", "Qwen2Config", _QWEN2),
    "qwen3": Tiny("Qwen3ForCausalLM", "Qwen3Config", _LLAMA),
    "gemma2": Tiny("Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3": Tiny(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        _GEMMA | {"rope_parameters": _GEMMA3_ROTARY, "num_hidden_layers": 7},
    ),
    "mixtral": Tiny("MixtralForCausalLM", "MixtralConfig", _MIXTRAL),
    "qwen3_moe": Tiny("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _QWEN3_MOE),
}

_BERT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-3,
}
_ROBERTA = _BERT | {"max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1, "pad_token_id": 1}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "decoder_start_token_id": 0,
}
_T5_V1_1 = _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

# Models with an encoder.
STACKS = {
    "bert": Tiny("BertForMaskedLM", "BertConfig", _BERT),
    "roberta": Tiny("RobertaForMaskedLM", "RobertaConfig", _ROBERTA),
    "t5": Tiny("T5ForConditionalGeneration", "T5Config", _T5),
    "t5_v1_1": Tiny("T5ForConditionalGeneration", "T5Config", _T5_V1_1),
}
_T5_TIED = {"tie_word_embeddings": True, "scale_decoder_outputs": False}
STACK_FORMS = {
    "bert_hidden": Tiny("BertModel", "BertConfig", _BERT | {"hidden_act": "gelu_new"}),
    "bert_classes": Tiny("BertForSequenceClassification", "BertConfig", _BERT | {"num_labels": 5}),
    "bert_two_classes": Tiny("BertForSequenceClassification", "BertConfig", _BERT),
    "roberta_hidden": Tiny("RobertaModel", "RobertaConfig", _ROBERTA | {"type_vocab_size": 2}),
    "roberta_classes": Tiny("RobertaForSequenceClassification", "RobertaConfig", _ROBERTA | {"num_labels": 5}),
    "t5_as_many_layers": Tiny("T5ForConditionalGeneration", "T5Config", _T5 | {"num_decoder_layers": None}),
    "t5_v1_1_tied": Tiny("T5ForConditionalGeneration", "T5Config", _T5_V1_1 | _T5_TIED),
}

# Of the same families, other forms; compared by tests/parity alone.
FORMS = {
    "gpt2_untied": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2 | {"tie_word_embeddings": False}),
    "gpt2_defaults": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2 | {"n_inner": None, "activation_function": "gelu"}),
    "llama_tied": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA | {"tie_word_embeddings": True}),
    "llama_linear": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA | _scaled(rope_type="linear", factor=3.0)),
    "llama_3": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA | _LLAMA3),
    "qwen2_yarn": Tiny("Qwen2ForCausalLM", "Qwen2Config", _QWEN2 | _YARN),
    "qwen3_yarn_own_numbers": Tiny("Qwen3ForCausalLM", "Qwen3Config", _LLAMA | _scaled(**_YARN_NUMBERS)),
    "gpt_neox_yarn": Tiny(
        "GPTNeoXForCausalLM", "GPTNeoXConfig", _NEOX | _scaled(**_YARN_NUMBERS, partial_rotary_factor=0.5)
    ),
    "gpt_neox_sequential": Tiny(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        _NEOX | {"use_parallel_residual": False, "hidden_act": "gelu_fast", "tie_word_embeddings": True},
    ),
    "gpt_neox_defaults": Tiny(
        "GPTNeoXForCausalLM", "GPTNeoXConfig", {name: _NEOX[name] for name in _NEOX if name != "rope_parameters"}
    ),
    "mistral_without_windows": Tiny("MistralForCausalLM", "MistralConfig", _LLAMA | {"sliding_window": None}),
    "qwen2_tied_and_late_windows": Tiny(
        "Qwen2ForCausalLM", "Qwen2Config", _LLAMA | _SLIDING_LATE | {"tie_word_embeddings": True}
    ),
    "qwen3_tied_and_late_windows": Tiny(
        "Qwen3ForCausalLM", "Qwen3Config", _LLAMA | _SLIDING_LATE | {"tie_word_embeddings": True}
    ),
    "gemma2_without_caps": Tiny(
        "Gemma2ForCausalLM", "Gemma2Config", _GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    ),
    "gemma3_other_pattern": Tiny(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {name: _GEMMA[name] for name in _GEMMA if name != "rope_parameters"}
        | {"layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"]},
    ),
    "mixtral_one_expert_a_token": Tiny(
        "MixtralForCausalLM", "MixtralConfig", _MIXTRAL | {"num_experts_per_tok": 1, "sliding_window": None}
    ),
    "qwen3_moe_tied_and_weights_of_all_experts": Tiny(
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig", _QWEN3_MOE | {"norm_topk_prob": False, "tie_word_embeddings": True}
    ),
}


def make(tiny: Tiny, seed: int = 7) -> Any:
    """Return a model whose every parameter is random: scales around 1, all else around 0."""
    configuration = getattr(transformers, tiny.configuration)(**tiny.options)
    configuration._attn_implementation = "eager"
    model = getattr(transformers, tiny.model)(configuration).float().eval()
    if "T5" in tiny.model and tiny.options.get("tie_word_embeddings") is False:
        # As published; the class unties them only where a file holds both.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            # Gemma's scales are 1 + the parameter.
            is_scale = path.endswith("weight") and tensor.ndim == 1 and "Gemma" not in tiny.model
            center = 1.0 if is_scale else 0.0
            # T5 does not scale its scores, but the weights of its queries are so much smaller.
            size = 0.3 * configuration.d_kv**-0.5 if path.endswith("Attention.q.weight") else 0.3
            tensor.copy_(center + size * torch.randn(tensor.shape, generator=generator))
    return model


def batch(seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Return ids `(B, T)` above those of special tokens, 0 where padded, and a mask of what is text."""
    mask = np.arange(max(LENGTHS))[None] < np.asarray(LENGTHS)[:, None]
    return np.random.default_rng(seed).integers(5, VOCABULARY, mask.shape) * mask, mask


def logits(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return their logits, float32 `(B, T, V)`; those of padding mean nothing."""
    with torch.no_grad():
        return model(**inputs(model, ids, mask)).logits.numpy()


def inputs(model: Any, ids: np.ndarray, mask: np.ndarray) -> dict[str, torch.Tensor]:
    """Return what a model is called with; the decoder of one with an encoder reads the ids reversed."""
    given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.tensor(ids[:, ::-1].copy())
    return given


def greedy(model: Any, ids: np.ndarray) -> np.ndarray:
    """Return the NEW likeliest tokens, one after another, behind the ids of one row `(T,)`."""
    text = torch.tensor(ids)[None]
    # An end-of-text token is a token like any other here.
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        out = model.generate(text, attention_mask=torch.ones_like(text), **options)
    return out[0, -NEW:].numpy()
