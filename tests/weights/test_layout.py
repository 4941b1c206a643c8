"""The layout, there and back, and what does not fit it; test_golden.py holds it against Transformers' logits."""

import jax
import ml_collections
import numpy as np
import pytest

from lm import trees
from lm.config.resolve import resolve
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights import config, layout
from lm.weights.bundle import shapes
from lm.weights.published import Tensor

FAMILIES = ("gpt2", "llama")


def published(tensors):
    """Return arrays as Tensors."""
    return {name: Tensor(array.shape, array.dtype.name, lambda array=array: array) for name, array in tensors.items()}


def from_theirs(tensors, section):
    """Return the parameters of arrays."""
    return layout.load(published(tensors), section)


def to_theirs(params, section):
    """Return the arrays of parameters, each of the shape and dtype that was said."""
    tensors = layout.theirs(params, section)
    arrays = {name: tensor.read() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert (tensor.shape, tensor.dtype) == (arrays[name].shape, arrays[name].dtype.name)
    return arrays


@pytest.fixture(params=FAMILIES)
def theirs(request, golden):
    """Return a model section with padded vocabulary, and their tensors."""
    read = golden(request.param)
    return section_of(read), read.tensors


def section_of(read, **fields):
    """Return the model section of a published model, but for some fields."""
    whole = ml_collections.ConfigDict(config.from_theirs(read.config))
    whole.model.update({"vocabulary_multiple": 8, **fields})
    return resolve(whole).model


def test_shapes_are_the_models(theirs):
    section, tensors = theirs
    describe = lambda tree: {
        p: (x.shape, x.dtype) for p, x in zip(trees.paths(tree), jax.tree.leaves(tree), strict=True)
    }
    assert describe(from_theirs(tensors, section)) == describe(shapes(Transformer(section)))


def test_there_and_back(theirs):
    section, tensors = theirs
    back = to_theirs(from_theirs(tensors, section), section)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor, err_msg=name, strict=True)


def test_ours_there_and_back(theirs, random_params):
    section, _ = theirs
    params = random_params(Transformer(section))
    again = from_theirs(to_theirs(params, section), section)
    for path, old, new in zip(trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        old = np.array(old)
        if path == "embed/embedding":
            old[section.vocabulary :] = 0
        if path == "head/kernel":
            old[:, section.vocabulary :] = 0
        np.testing.assert_array_equal(old, new, err_msg=path)


def test_missing_tensors_are_named(theirs):
    section, tensors = theirs
    lost = sorted(tensors)[3]
    with pytest.raises(Refusal, match=f"lack {lost}"):
        from_theirs({name: tensor for name, tensor in tensors.items() if name != lost}, section)


def test_extra_tensors_are_named(theirs):
    section, tensors = theirs
    with pytest.raises(Refusal, match=r"have another\.weight"):
        from_theirs(tensors | {"another.weight": np.zeros(3)}, section)


def test_other_shapes_are_named(theirs):
    section, tensors = theirs
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1]:
            with pytest.raises(Refusal, match=f"{name} has the shape"):
                from_theirs(tensors | {name: tensor.T}, section)


@pytest.mark.parametrize(
    ("family", "overrides", "words"),
    [
        ("gpt2", {"qk_norm": True}, "key_norm"),
        ("llama", {"bias": True}, "decoder/block/attention/out/bias"),
    ],
)
def test_models_beyond_the_layout_are_refused(golden, random_params, family, overrides, words):
    section = section_of(golden(family), **overrides)
    with pytest.raises(Refusal, match=words):
        to_theirs(random_params(Transformer(section)), section)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt2", {"vocabulary": 10**12}),
        ("gpt2", {"context": 10**12}),
        ("gpt2", {"width": 2**29}),
        ("bert", {"token_types": 10**12}),
        ("t5", {"encoder_layers": 9999}),
        ("t5", {"relative_buckets": 10**12, "relative_distance": 10**13}),
    ],
)
def test_sizes_of_no_tensor_are_refused_before_a_model_is_made(golden, monkeypatch, name, fields):
    read = golden(name)
    field, size = next(iter(fields.items()))
    monkeypatch.setattr(layout, "Transformer", lambda section: pytest.fail("a model was made"))
    nothing = Tensor((2**40, 0), "float32", lambda: np.zeros((2**40, 0), np.float32))
    with pytest.raises(Refusal, match=f"model.{field} is {size}: no tensor"):
        layout.load(published(read.tensors) | {"nothing": nothing}, section_of(read, **fields))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_model_has_no_head_but_a_file_may_repeat_it(golden, random_params, family):
    section = section_of(golden(family), tied=True)
    tensors = to_theirs(random_params(Transformer(section)), section)
    assert "lm_head.weight" not in tensors
    (embedding,) = [name for name in tensors if name.endswith(("wte.weight", "embed_tokens.weight"))]
    from_theirs(tensors | {"lm_head.weight": tensors[embedding]}, section)
    with pytest.raises(Refusal, match=r"lm_head.weight is not equal to"):
        from_theirs(tensors | {"lm_head.weight": tensors[embedding] + 1}, section)


def test_names_may_lack_the_prefix(theirs):
    section, tensors = theirs
    bare = {name.removeprefix("model.").removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    one, other = from_theirs(bare, section), from_theirs(tensors, section)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_buffers_are_passed_over(theirs):
    section, tensors = theirs
    buffer = {"gpt2": "transformer.h.0.attn.bias", "llama": "model.layers.0.self_attn.rotary_emb.inv_freq"}
    from_theirs(tensors | {buffer[section.family]: np.zeros(3)}, section)
