"""Published models: as Transformers wrote them (tests/golden), and made up, of any type that GGUF files hold."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

from lm.text.published import made
from lm.weights.published import Published, Tensor

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem.removesuffix("_tiny") for path in GOLDEN.glob("*_tiny.npz"))


class Golden(NamedTuple):
    """A published model and what comes of it; see tests/golden/make_logits.py."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    results: dict[str, np.ndarray]

    def write(self, folder):
        """Write config.json and model.safetensors, by the library's own writer."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, folder / "model.safetensors")
        return folder


@pytest.fixture(scope="session")
def golden():
    """Return a function: name → Golden."""

    def read(name):
        with np.load(GOLDEN / f"{name}_tiny.npz") as file:
            arrays = dict(file)
        config = json.loads(str(arrays.pop("config")))
        results = {key: arrays.pop(key) for key in ("ids", "mask", "logits", "greedy") if key in arrays}
        return Golden(config, arrays, results)

    return read


@pytest.fixture(params=NAMES)
def family(request, golden):
    """Return the Golden of every family in turn."""
    return golden(request.param)


_LLAMA = {
    "max_position_embeddings": 17,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "head_dim": 8,
    "vocab_size": 71,
    "hidden_act": "silu",
    "attention_bias": False,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
_QWEN = {**_LLAMA, "use_sliding_window": False}
_GEMMA = {
    **{name: value for name, value in _LLAMA.items() if name != "hidden_act"},
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 5,
    "query_pre_attn_scalar": 8,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "llama": {**_LLAMA, "mlp_bias": False},
    "mistral": {name: value for name, value in _LLAMA.items() if name != "attention_bias"},
    "mixtral": {
        **{name: value for name, value in _LLAMA.items() if name != "attention_bias"},
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    },
    "qwen2": {name: value for name, value in _QWEN.items() if name != "attention_bias"},
    "qwen3": _QWEN,
    "qwen3_moe": {
        **{name: value for name, value in _QWEN.items() if name != "intermediate_size"},
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "gemma2": {
        **_GEMMA,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma3_text": {
        **_GEMMA,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_local_base_freq": 200.0,
        "layer_types": ["sliding_attention", "sliding_attention"],
    },
    "gpt2": {
        "n_positions": 17,
        "n_embd": 32,
        "n_layer": 2,
        "n_inner": 96,
        "n_head": 4,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 71,
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
}


def _block(kind):
    """Yield name and shape of a block's tensors, as modeling_KIND.py of Transformers has them."""
    if kind == "gpt2":
        sizes = {"attn.c_attn": (32, 96), "attn.c_proj": (32, 32), "mlp.c_fc": (32, 96), "mlp.c_proj": (96, 32)}
        for name, shape in sizes.items():
            yield f"{name}.weight", shape
            yield f"{name}.bias", shape[1:]
        for name in ("ln_1", "ln_2"):
            yield f"{name}.weight", (32,)
            yield f"{name}.bias", (32,)
        return
    widths = {"q_proj": 32, "k_proj": 16, "v_proj": 16}
    for name, width in widths.items():
        yield f"self_attn.{name}.weight", (width, 32)
        if kind == "qwen2":
            yield f"self_attn.{name}.bias", (width,)
    yield "self_attn.o_proj.weight", (32, 32)
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        yield "self_attn.q_norm.weight", (8,)
        yield "self_attn.k_norm.weight", (8,)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind.startswith("gemma"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for name in norms:
        yield f"{name}.weight", (32,)
    if kind == "mixtral":
        yield "block_sparse_moe.gate.weight", (3, 32)
        for expert in range(3):
            for name, shape in {"w1": (96, 32), "w2": (32, 96), "w3": (96, 32)}.items():
                yield f"block_sparse_moe.experts.{expert}.{name}.weight", shape
        return
    if kind == "qwen3_moe":
        yield "mlp.gate.weight", (3, 32)
        for expert in range(3):
            for name, shape in {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}.items():
                yield f"mlp.experts.{expert}.{name}.weight", shape
        return
    for name, shape in {"gate_proj": (96, 32), "up_proj": (96, 32), "down_proj": (32, 96)}.items():
        yield f"mlp.{name}.weight", shape


def _shapes(kind):
    if kind == "gpt2":
        yield "transformer.wte.weight", (71, 32)
        yield "transformer.wpe.weight", (17, 32)
        yield "transformer.ln_f.weight", (32,)
        yield "transformer.ln_f.bias", (32,)
    else:
        yield "model.embed_tokens.weight", (71, 32)
        yield "model.norm.weight", (32,)
        if not kind.startswith("gemma"):
            yield "lm_head.weight", (71, 32)
    prefix = "transformer.h" if kind == "gpt2" else "model.layers"
    for layer in range(2):
        for name, shape in _block(kind):
            yield f"{prefix}.{layer}.{name}", shape


@pytest.fixture(scope="session")
def spelled():
    """Return a tokenizer of 68 byte-level tokens, two of them special, cut as SmolLM's is."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzĠĊ0123456789.,()<>|_:=+-'"))
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("r", "e"), ("o", "n"), ("Ġa", "n")]
    tokens = ["<|end|>", "<|start|>", *letters, *("".join(pair) for pair in merges)]
    inner = tokenizers.Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|end|>", "<|start|>"])
    return made({"tokenizer.json": inner.to_str()}, {"eos_token_id": 0}, "a")


@pytest.fixture(scope="session")
def published(spelled):
    """Return a function: a model type → a random model of it, its values such that bfloat16 holds them."""
    import ml_dtypes

    def tensor(generator, shape, dtype):
        array = generator.normal(size=shape).astype(ml_dtypes.bfloat16).astype(dtype)
        return Tensor(shape, np.dtype(dtype).name, lambda: array)

    def make(kind, dtype="float32", **config):
        generator = np.random.default_rng(0)
        tensors = {name: tensor(generator, shape, dtype) for name, shape in _shapes(kind)}
        ids = {"eos_token_id": 0, "bos_token_id": 1}
        return Published({"model_type": kind, **CONFIGS[kind], **config}, ids, tensors, spelled)

    return make


@pytest.fixture(scope="session")
def tokenizer_json():
    """Return a tokenizer.json of 61 characters, the first three special."""
    letters = ["<pad>", "<s>", "</s>", *map(chr, range(ord("A"), ord("A") + 56)), "?"]
    vocabulary = {letter: index for index, letter in enumerate(dict.fromkeys([*letters, " "]))}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(["<pad>", "<s>", "</s>"])
    return inner.to_str()
