"""Parameters ready for reading token by token: the same model in another form, or in a quarter of the memory."""

import jax
import numpy as np
import pytest

from lm.generate import decode, prepare
from lm.generate.generator import Generator
from lm.generate.method import padded
from lm.model.whole import Whole
from lm.refusal import Refusal

FORMS = {
    "gpt2": {"model__family": "gpt2"},
    "llama": {"model__family": "llama", "model__tied": False},
    "mixture": {"model__family": "mixtral"},
    "T5": {"model__family": "t5", "model__architecture": "encoder_decoder"},
}
IDS = padded([list(b"Hello"), list(b"the cat sat")], 12)


def logits(model, params, **how):
    """Return the logits after prompts, and after one token more."""
    reading = decode.prefill(model, params, *IDS, slots=13, **how)
    _, after = decode.look(model, params, np.full((2, 1), 65), reading.text.lengths[:, None], reading.cache)
    return np.stack([reading.logits, after[:, 0]])


def bytes_of(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def by_hand(params):
    """Return the parameters with kernels and embedding rounded to 255 values per output, float32."""

    def walk(tree, path):
        if isinstance(tree, dict):
            return {name: walk(part, (*path, name)) for name, part in tree.items()}
        array = np.asarray(tree)
        is_layer = "block" in path
        if path == ("embed", "embedding"):
            axes = (1,)
        elif path[-1] != "kernel" or {"router", "experts"} & set(path) or path[0] == "encoder":
            return tree
        else:
            axes = tuple(range(is_layer, is_layer + (2 if path[-3:-1] == ("attention", "out") else 1)))
        scale = np.maximum(np.abs(array).max(axis=axes, keepdims=True), 1e-30) / 127
        return jax.numpy.asarray(np.round(array / scale) * scale)

    return walk(params, ())


@pytest.mark.parametrize("form", FORMS)
def test_whole_numbers_are_the_model_rounded(byte_bundle, form):
    """The logits of the parameters rounded by hand; near the model's own, in a quarter of its bytes."""
    bundle = byte_bundle(**FORMS[form])
    config = bundle.model.config
    real, held = (prepare.ready(config, bundle.params, dtype) for dtype in ("model", "int8"))
    found = logits(bundle.model, held)
    wanted = logits(bundle.model, prepare.ready(config, by_hand(bundle.params)))
    own = logits(bundle.model, real)
    np.testing.assert_allclose(found, wanted, atol=1e-2)
    assert 3 * np.abs(found - wanted).max() < np.abs(found - own).max() < 0.6
    if form not in ("T5", "mixture"):  # an encoder and experts stay
        assert bytes_of(held) < 0.4 * bytes_of(real)
    for path, leaf in jax.tree_util.tree_flatten_with_path(held)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        stays = any(part in name for part in ("encoder", "router", "experts"))
        if leaf.ndim > 1 and not stays and leaf.size > 500:
            assert leaf.dtype == np.int8 or name.endswith("scale") or "position" in name, name


def test_half_of_the_bits_are_half_of_the_bytes(byte_bundle, sampling):
    """And near the model: of its log-probabilities what 8 bits of precision leave."""
    bundle, texts = byte_bundle(model__family="llama", model__tied=False), {}
    for dtype in ("model", "bfloat16"):
        generator = Generator(bundle, weight_dtype=dtype)
        (one,) = generator(["Hello"], sampling(weight_dtype=dtype, max_new_tokens=1))
        texts[dtype] = one, bytes_of(generator.ready.params), generator.ready.model.config.dtype
    np.testing.assert_allclose(texts["model"][0].logprobs, texts["bfloat16"][0].logprobs, atol=0.1)
    assert texts["bfloat16"][1] < 0.6 * texts["model"][1] and texts["bfloat16"][2] == "bfloat16"


def test_a_large_models_bytes_are_a_quarter(tiny, random_params, byte_bundle):
    """Scales, norms and biases are little beside the rest where vectors are long."""
    bundle = byte_bundle(model__family="llama", model__width=256, model__feedforward_width=512, model__layers=1)
    real, held = (bytes_of(prepare.ready(bundle.model.config, bundle.params, dtype)) for dtype in ("model", "int8"))
    assert held < 0.27 * real
    layer = prepare.ready(bundle.model.config, bundle.params, "int8")["decoder"]["block"][0]
    assert isinstance(layer["feedforward"]["in"]["rows"], Whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_of_whole_numbers(byte_bundle, dtype):
    """Its bytes, heads being 24 wide; and what the model then says."""
    bundle = byte_bundle(model__family="llama", model__dtype=dtype, model__head_width=24)
    params = prepare.ready(bundle.model.config, bundle.params)
    cache = lambda name: decode.prefill(bundle.model, params, *IDS, slots=13, cache_dtype=name).cache
    numbers = sum(leaf.size for leaf in jax.tree.leaves(cache("model")))
    assert bytes_of(cache("int8")) <= 0.32 * 4 * numbers
    found, own = logits(bundle.model, params, cache_dtype="int8"), logits(bundle.model, params)
    for index in range(2):  # a prompt reads itself as it is kept
        assert 0 < np.abs(found[index] - own[index]).max() < 0.3


@pytest.mark.parametrize("options", [{}, {"sinks": np.int32(1)}], ids=["plain", "rolling"])
def test_a_prompt_in_whole_numbers_is_read_alike_at_once_and_later(byte_bundle, options):
    bundle = byte_bundle(model__family="llama")
    params, how = prepare.ready(bundle.model.config, bundle.params), {"slots": 13, "cache_dtype": "int8"} | options
    ids, lengths = IDS
    whole = decode.prefill(bundle.model, params, ids, lengths, **how)
    first = decode.prefill(bundle.model, params, ids, lengths - 1, **how)
    last = np.take_along_axis(ids, lengths[:, None] - 1, axis=1)
    _, later = decode.look(bundle.model, params, last, lengths[:, None] - 1, first.cache)
    np.testing.assert_allclose(later[:, 0], whole.logits, atol=1e-3)


def test_a_generator_of_whole_numbers(byte_bundle, sampling):
    """Batched as alone; a Generator that holds its weights in another way says so."""
    bundle, prompts = byte_bundle(model__family="llama"), ["Hello", "a"]
    write = Generator(bundle, weight_dtype="int8")
    fields = {"weight_dtype": "int8", "cache_dtype": "int8", "max_new_tokens": 5}
    found = [one.tokens for one in write(prompts, sampling(**fields))]
    assert found == [write([prompt], sampling(**fields))[0].tokens for prompt in prompts]
    with pytest.raises(Refusal, match=r"sample\.weight_dtype is 'model': this Generator was made for 'int8'"):
        write(prompts, sampling())
