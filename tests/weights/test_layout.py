"""The layout against Hugging Face: their logits from their weights (tests/golden), and there and back."""

from pathlib import Path

import jax
import numpy as np
import pytest

from lm import trees
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights import layout
from lm.weights.bundle import shapes
from lm.weights.published import Tensor

SIZES = {
    "gpt2": {"model__kv_heads": 4},
    "llama": {"model__head_width": 8, "model__rotary_base": 500.0},
}


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


@pytest.fixture(params=SIZES)
def theirs(request, tiny):
    """Return the model section, their tensors, ids and logits."""
    section = tiny(model__family=request.param, **SIZES[request.param]).model
    with np.load(Path(__file__).parents[1] / "golden" / f"{request.param}_tiny.npz") as file:
        tensors = dict(file)
    return section, tensors, tensors.pop("ids"), tensors.pop("logits")


def test_logits_are_theirs(theirs):
    section, tensors, ids, logits = theirs
    model = Transformer(section)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    params = from_theirs(tensors, section)
    out = jax.jit(model.apply)({"params": params}, ids, positions, np.ones_like(ids))
    ours = np.asarray(out.hidden @ out.unembed)
    assert np.ptp(logits) > 5
    np.testing.assert_allclose(ours[..., : section.vocabulary], logits, rtol=0, atol=1e-5)
    assert (ours[..., section.vocabulary :] == 0).all()


def test_shapes_are_the_models(theirs):
    section, tensors, *_ = theirs
    describe = lambda tree: {
        p: (x.shape, x.dtype) for p, x in zip(trees.paths(tree), jax.tree.leaves(tree), strict=True)
    }
    assert describe(from_theirs(tensors, section)) == describe(shapes(Transformer(section)))


def test_there_and_back(theirs):
    section, tensors, *_ = theirs
    back = to_theirs(from_theirs(tensors, section), section)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor, err_msg=name, strict=True)


def test_ours_there_and_back(theirs, random_params):
    section, *_ = theirs
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
    section, tensors, *_ = theirs
    lost = sorted(tensors)[3]
    with pytest.raises(Refusal, match=f"lack {lost}"):
        from_theirs({name: tensor for name, tensor in tensors.items() if name != lost}, section)


def test_extra_tensors_are_named(theirs):
    section, tensors, *_ = theirs
    with pytest.raises(Refusal, match=r"have another\.weight"):
        from_theirs(tensors | {"another.weight": np.zeros(3)}, section)


def test_other_shapes_are_named(theirs):
    section, tensors, *_ = theirs
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1]:
            with pytest.raises(Refusal, match=f"{name} has the shape"):
                from_theirs(tensors | {name: tensor.T}, section)


@pytest.mark.parametrize(
    ("family", "overrides", "words"),
    [
        ("gpt2", {"model__kv_heads": 4, "model__qk_norm": True}, "key_norm"),
        ("llama", {"model__bias": True}, "decoder/block/attention/key/bias"),
    ],
)
def test_models_beyond_the_layout_are_refused(tiny, random_params, family, overrides, words):
    section = tiny(model__family=family, **overrides).model
    with pytest.raises(Refusal, match=words):
        to_theirs(random_params(Transformer(section)), section)


@pytest.mark.parametrize("family", SIZES)
def test_a_tied_model_has_no_head_but_a_file_may_repeat_it(tiny, random_params, family):
    section = tiny(model__family=family, model__tied=True, **SIZES[family]).model
    tensors = to_theirs(random_params(Transformer(section)), section)
    assert "lm_head.weight" not in tensors
    (embedding,) = [name for name in tensors if name.endswith(("wte.weight", "embed_tokens.weight"))]
    from_theirs(tensors | {"lm_head.weight": tensors[embedding]}, section)
    with pytest.raises(Refusal, match=r"lm_head.weight is not equal to"):
        from_theirs(tensors | {"lm_head.weight": tensors[embedding] + 1}, section)


def test_names_may_lack_the_prefix(theirs):
    section, tensors, *_ = theirs
    bare = {name.removeprefix("model.").removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    one, other = from_theirs(bare, section), from_theirs(tensors, section)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_buffers_are_passed_over(theirs):
    section, tensors, *_ = theirs
    buffer = {"gpt2": "transformer.h.0.attn.bias", "llama": "model.layers.0.self_attn.rotary_emb.inv_freq"}
    from_theirs(tensors | {buffer[section.family]: np.zeros(3)}, section)
