"""Scanned or unrolled, recomputed or not, in groups or one by one: the same numbers from another program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import masks
from lm.model.attend import einsum
from lm.model.block import Block, Context
from lm.model.norms import NORMS
from lm.model.transformer import Transformer

IDS = np.random.default_rng(0).integers(0, 61, (2, 13))
SEGMENTS, POSITIONS = np.ones_like(IDS), np.broadcast_to(np.arange(13), (2, 13))
DIRECTION = np.random.default_rng(1).normal(size=(2, 13, 24)).astype(np.float32)


def _compiled(loss, params):
    """Return the lowered gradient of a loss, and its value and gradients."""
    lowered = jax.jit(jax.value_and_grad(loss)).lower(params)
    return lowered.as_text(), lowered.compile()(params)


def _loss(tiny, random_params, **overrides):
    model = Transformer(tiny(model__family="llama", **overrides).model)
    rows = IDS, POSITIONS, SEGMENTS
    return lambda params: jnp.sum(model.apply({"params": params}, *rows).hidden * DIRECTION), random_params(model)


def _program(tiny, random_params, **overrides):
    return _compiled(*_loss(tiny, random_params, **overrides))


def _assert_same(one, other):
    (loss, gradient), (other_loss, other_gradient) = one, other
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    for leaf, other_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
        np.testing.assert_allclose(leaf, other_leaf, atol=1e-5 * float(np.abs(leaf).max()))


@pytest.fixture(scope="module")
def unrolled(tiny, random_params):
    return _program(tiny, random_params, model__unroll=3)


def test_scan_is_unroll(tiny, random_params, unrolled):
    text, values = _program(tiny, random_params, model__unroll=1)
    assert text.count("stablehlo.while") == 2 and unrolled[0].count("stablehlo.while") == 0
    _assert_same(values, unrolled[1])


def test_remat_computes_more_and_the_same(tiny, random_params, unrolled):
    products = [unrolled[0].count("stablehlo.dot_general")]
    for remat in ("dots", "attention", "full"):
        text, values = _program(tiny, random_params, model__unroll=3, model__remat=remat)
        products.append(text.count("stablehlo.dot_general"))
        _assert_same(values, unrolled[1])
    assert products[0] < products[1] < products[2] < products[3]


@pytest.mark.parametrize("unroll", [1, 3])
def test_remat_in_the_memory_of_the_host(tiny, random_params, unrolled, unroll):
    """As many products as with "dots", whose results a TPU sends away and fetches again."""
    kept, _ = _program(tiny, random_params, model__unroll=unroll, model__remat="dots")
    text, values = _program(tiny, random_params, model__unroll=unroll, model__remat="offload")
    assert text.count("stablehlo.dot_general") == kept.count("stablehlo.dot_general")
    _assert_same(values, unrolled[1])
    loss, params = _loss(tiny, random_params, model__unroll=unroll, model__remat="offload")
    text = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=("tpu",)).as_text()
    assert '"pinned_host"' in text and '"device"' in text


def test_remat_in_a_scan(tiny, random_params, unrolled):
    """A loop's body needs no barrier to be computed again."""
    text, values = _program(tiny, random_params, model__unroll=1, model__remat="full")
    assert text.count("stablehlo.while") == 2 and text.count("stablehlo.optimization_barrier") == 0
    _assert_same(values, unrolled[1])


PATTERN = {"model__layers": 5, "model__windows": (2, 0)}  # 2 0, 2 0, and a 2 left over


@pytest.fixture(scope="module")
def looped(tiny, random_params):
    """Return what the pattern's blocks make of the rows, one by one, with parameters cut from the stacked ones."""
    section = tiny(model__family="llama", **PATTERN).model
    block = Block(section, einsum, lambda array, name: array)

    def loss(params):
        hidden = params["embed"]["embedding"][IDS]
        context = Context(POSITIONS, masks.packed(SEGMENTS), None, hidden, None, False, 5)
        for layer, window in enumerate((2, 0, 2, 0, 2)):
            own = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["decoder"]["block"])
            hidden, *_ = block.apply({"params": own}, hidden, None, layer, window, context)
        hidden = NORMS[section.norm](section).apply({"params": params["decoder"]["norm"]}, hidden)
        return jnp.sum(hidden * DIRECTION)

    return _compiled(loss, random_params(Transformer(section)))


@pytest.mark.parametrize(("unroll", "loops"), [(1, 2), (5, 0)])
def test_a_pattern_is_its_blocks_one_by_one(tiny, random_params, looped, unroll, loops):
    text, values = _program(tiny, random_params, model__unroll=unroll, **PATTERN)
    assert text.count("stablehlo.while") == loops
    _assert_same(values, looped[1])
    assert looped[0].count("stablehlo.while") == 0
    if loops:  # two blocks in the loop and one after it, instead of five
        assert text.count("stablehlo.dot_general") == looped[0].count("stablehlo.dot_general") * 3 // 5


def test_a_pattern_with_remat(tiny, random_params, looped):
    """The layer left over is outside of the loop, where a barrier keeps it from being computed only once."""
    text, values = _program(tiny, random_params, model__unroll=1, model__remat="full", **PATTERN)
    assert text.count("stablehlo.while") == 2 and text.count("stablehlo.optimization_barrier") == 3
    _assert_same(values, looped[1])


def test_every_layer_has_its_window(tiny, random_params):
    """With one layer's attention alone at work, a token depends on its embedding and on what that layer's sees."""
    windows = (2, 5, 3)
    model = Transformer(tiny(model__layers=5, model__windows=windows).model)
    params = random_params(model)
    ids, rows = np.arange(13)[None], (POSITIONS[:1], SEGMENTS[:1])

    @jax.jit
    def depends(layer):
        block = params["decoder"]["block"]
        kernel = block["attention"]["out"]["kernel"]
        kernel = kernel * (jnp.arange(5) == layer)[:, None, None, None]
        block = block | {"attention": block["attention"] | {"out": block["attention"]["out"] | {"kernel": kernel}}}
        decoder = params["decoder"] | {"block": block}

        def outcome(embedding):
            tree = params | {"embed": {"embedding": embedding}, "decoder": decoder}
            return model.apply({"params": tree}, ids, *rows).hidden[0] @ DIRECTION[0, 0]

        return jnp.abs(jax.jacrev(outcome)(params["embed"]["embedding"])[:, :13]).max(axis=-1) > 0

    for layer in range(5):
        reach = windows[layer % 3]
        expected = np.tri(13, dtype=bool) & ~np.tri(13, k=-reach, dtype=bool)
        np.testing.assert_array_equal(depends(layer), expected, err_msg=str(layer))
