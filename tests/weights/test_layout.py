"""The layout against Hugging Face: their logits from their weights (tests/golden), and there and back."""

from pathlib import Path

import jax
import numpy as np
import pytest

from lm import trees
from lm.families.catalog import FAMILIES
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights import layout
from lm.weights.place import shapes

SIZES = {
    "gpt2": {"model__kv_heads": 4},
    "llama": {"model__head_width": 8, "model__rotary_base": 500.0},
}


@pytest.fixture(params=FAMILIES)
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
    params = layout.from_theirs(tensors, section)
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
    assert describe(layout.from_theirs(tensors, section)) == describe(shapes(Transformer(section)))


def test_there_and_back(theirs):
    section, tensors, *_ = theirs
    back = layout.to_theirs(layout.from_theirs(tensors, section), section)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor, err_msg=name, strict=True)


def test_ours_there_and_back(theirs, random_params):
    section, *_ = theirs
    params = random_params(Transformer(section))
    again = layout.from_theirs(layout.to_theirs(params, section), section)
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
        layout.from_theirs({name: tensor for name, tensor in tensors.items() if name != lost}, section)


def test_extra_tensors_are_named(theirs):
    section, tensors, *_ = theirs
    with pytest.raises(Refusal, match=r"have another\.weight"):
        layout.from_theirs(tensors | {"another.weight": np.zeros(3)}, section)


def test_other_shapes_are_named(theirs):
    section, tensors, *_ = theirs
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1]:
            with pytest.raises(Refusal, match=f"{name} has the shape"):
                layout.from_theirs(tensors | {name: tensor.T}, section)


@pytest.mark.parametrize(
    ("family", "overrides", "words"),
    [
        ("gpt2", {"model__kv_heads": 2}, "model.kv_heads is 2"),
        ("gpt2", {"model__kv_heads": 4, "model__positions": "rotary"}, "positions/embedding"),
        ("gpt2", {"model__kv_heads": 4, "model__tied": False}, "head/kernel"),
        ("llama", {"model__bias": True}, "decoder/block/attention/key/bias"),
    ],
)
def test_models_beyond_the_layout_are_refused(tiny, random_params, family, overrides, words):
    section = tiny(model__family=family, **overrides).model
    with pytest.raises(Refusal, match=words):
        layout.to_theirs(random_params(Transformer(section)), section)


def test_tied_llama_has_no_head(tiny, random_params):
    section = tiny(model__family="llama", model__tied=True).model
    tensors = layout.to_theirs(random_params(Transformer(section)), section)
    assert "lm_head.weight" not in tensors
    with pytest.raises(Refusal, match=r"have lm_head.weight"):
        layout.from_theirs(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, section)
