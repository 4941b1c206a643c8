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

MODELS = {
    "gpt2": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "llama": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA),
}

# Of the same families, other forms; compared by tests/parity alone.
FORMS = {
    "gpt2_untied": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2 | {"tie_word_embeddings": False}),
    "gpt2_defaults": Tiny("GPT2LMHeadModel", "GPT2Config", _GPT2 | {"n_inner": None, "activation_function": "gelu"}),
    "llama_tied": Tiny("LlamaForCausalLM", "LlamaConfig", _LLAMA | {"tie_word_embeddings": True}),
}


def make(tiny: Tiny, seed: int = 7) -> Any:
    """Return a model whose every parameter is random: scales around 1, all else around 0."""
    configuration = getattr(transformers, tiny.configuration)(**tiny.options)
    configuration._attn_implementation = "eager"
    model = getattr(transformers, tiny.model)(configuration).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            center = 1.0 if path.endswith("weight") and tensor.ndim == 1 else 0.0
            tensor.copy_(center + 0.3 * torch.randn(tensor.shape, generator=generator))
    return model


def batch(seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Return ids `(B, T)` above those of special tokens, 0 where padded, and a mask of what is text."""
    mask = np.arange(max(LENGTHS))[None] < np.asarray(LENGTHS)[:, None]
    return np.random.default_rng(seed).integers(5, VOCABULARY, mask.shape) * mask, mask


def logits(model: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return their logits, float32 `(B, T, V)`; those of padding mean nothing."""
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).logits.numpy()


def greedy(model: Any, ids: np.ndarray) -> np.ndarray:
    """Return the NEW likeliest tokens, one after another, behind the ids of one row `(T,)`."""
    text = torch.tensor(ids)[None]
    # An end-of-text token is a token like any other here.
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        out = model.generate(text, attention_mask=torch.ones_like(text), **options)
    return out[0, -NEW:].numpy()
