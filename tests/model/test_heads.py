"""Each head against its formula in NumPy; which parameters it has."""

import math

import jax
import numpy as np
import pytest

from lm import trees
from lm.config import schema
from lm.model.heads import HEADS
from lm.model.transformer import Transformer
from lm.objective.losses import logits_of

IDS = np.random.default_rng(0).integers(0, 61, (2, 5))
ROWS = IDS, np.broadcast_to(np.arange(5), (2, 5)), np.ones((2, 5), int)


def test_heads_are_the_schemas():
    assert set(HEADS) == set(schema.FIELDS["model.head"].rule.choices)


@pytest.fixture
def built(tiny, random_params):
    """Return a function: model options → its section, parameters in NumPy, Output, and the last block's hidden states.

    Those are what the same model without a head gives.
    """

    def build(**options):
        options = {"architecture": "encoder", "dropout": 0.5} | options
        make = lambda options: Transformer(tiny(**{f"model__{name}": value for name, value in options.items()}).model)
        model = make(options)
        params = random_params(model)
        bare = make(options | {"head": "none", "labels": None, "scaled_head": False})
        plain = {name: leaf for name, leaf in params.items() if name != "head"}
        run = lambda model, params: jax.jit(model.apply)({"params": params}, *ROWS)
        out, hidden = run(model, params), run(bare, plain)
        assert hidden.unembed is None and hidden.unembed_bias is None
        return model.config, jax.tree.map(np.asarray, params), out, np.asarray(hidden.hidden, np.float64)

    return build


def _layer(x, params):
    return x @ np.float64(params["kernel"]) + np.float64(params.get("bias", 0.0))


def _layer_norm(x, params, epsilon):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params["scale"] + params["bias"]


def _gelu(x):
    return x * np.vectorize(lambda number: 0.5 * (1 + math.erf(number / 2**0.5)))(x)


@pytest.mark.parametrize("is_tied", [True, False])
def test_language_scaled(built, is_tied):
    """Width is 24."""
    _, params, out, hidden = built(tied=is_tied, scaled_head=True)
    np.testing.assert_allclose(out.hidden, hidden / 24**0.5, atol=1e-6)
    expected = params["embed"]["embedding"].T if is_tied else params["head"]["kernel"]
    np.testing.assert_array_equal(out.unembed, expected)
    assert out.unembed_bias is None and ("head" in params) == (not is_tied)


@pytest.mark.parametrize("is_tied", [True, False])
def test_masked(built, is_tied):
    _, params, out, hidden = built(head="masked", activation="gelu", norm_epsilon=0.1, tied=is_tied)
    head = params["head"]
    expected = _layer_norm(_gelu(_layer(hidden, head["dense"])), head["norm"], 0.1)
    np.testing.assert_allclose(out.hidden, expected, atol=1e-5)
    np.testing.assert_array_equal(out.unembed, params["embed"]["embedding"].T if is_tied else head["kernel"])
    np.testing.assert_array_equal(out.unembed_bias, head["bias"])
    assert out.unembed_bias.shape == (64,) and set(head) == {"dense", "norm", "bias", *([] if is_tied else ["kernel"])}


@pytest.mark.parametrize(("architecture", "has_pooler"), [("encoder", True), ("decoder", False)])
def test_classify(built, architecture, has_pooler):
    """A decoder has no pooler; logits are of labels, without padding."""
    section, params, out, hidden = built(head="classify", labels=3, architecture=architecture)
    assert section.pooler == has_pooler == ("pooler" in params)
    read = np.tanh(_layer(hidden, params["pooler"])) if has_pooler else hidden
    np.testing.assert_allclose(out.hidden, read, atol=1e-5)
    np.testing.assert_array_equal(out.unembed, params["head"]["kernel"])
    np.testing.assert_array_equal(out.unembed_bias, params["head"]["bias"])
    assert out.unembed.shape == (24, 3) and logits_of(section).vocabulary == 3


def test_a_pooler_beside_another_head_is_only_looked_at(built):
    _, params, out, hidden = built(head="language", pooler=True)
    np.testing.assert_allclose(out.pooled, np.tanh(_layer(hidden, params["pooler"])), atol=1e-5)
    np.testing.assert_allclose(out.hidden, hidden, atol=1e-6)


def test_without_bias_no_head_has_one(tiny):
    for head, paths in {
        "masked": {"head/dense/kernel", "head/norm/scale"},
        "classify": {"head/kernel", "pooler/kernel"},
        "none": set(),
    }.items():
        labels = 3 if head == "classify" else None
        section = tiny(
            model__head=head, model__labels=labels, model__bias=False, model__norm="rms", model__architecture="encoder"
        ).model
        shapes = jax.eval_shape(lambda section=section: Transformer(section).init(jax.random.key(0), *ROWS)["params"])
        assert {path for path in trees.paths(shapes) if path.startswith(("head", "pooler"))} == paths


def test_dropout_before_the_classes(tiny, random_params):
    """A share of the numbers is zero, the others are scaled; in evaluation none."""
    model = Transformer(tiny(model__head="classify", model__labels=3, model__dropout=0.25).model)
    params, rngs = random_params(model), {"dropout": jax.random.key(0)}
    out = jax.jit(lambda: model.apply({"params": params}, *ROWS, train=True, rngs=rngs))()
    assert 0.1 < (np.asarray(out.hidden) == 0).mean() < 0.4


@pytest.mark.parametrize("head", ["language", "masked", "classify"])
def test_dtypes(tiny, random_params, head):
    options = {"head": head, "labels": 3 if head == "classify" else None, "scaled_head": head == "language"}
    options |= {"architecture": "encoder", "dtype": "bfloat16", "token_types": 2, "embedding_norm": True}
    model = Transformer(tiny(**{f"model__{name}": value for name, value in options.items()}).model)
    out = jax.eval_shape(lambda params: model.apply({"params": params}, *ROWS), random_params(model))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(out)} == {"bfloat16"}
