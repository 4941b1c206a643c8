"""Layers as leaves of their own, kernels as matrices."""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from lm import trees
from lm.config import defaults
from lm.families.catalog import FAMILIES
from lm.model.transformer import Transformer
from lm.optim import leaves
from lm.optim.optimizers import OPTIMIZERS, Parts
from lm.weights.place import shapes


def test_per_layer_sees_one_layer_at_a_time():
    """Each leaf's largest entry, seen through a transformation that knows nothing of layers."""
    largest = optax.stateless(lambda updates, params: jax.tree.map(lambda leaf: 0 * leaf + leaf.max(), updates))
    tree = {"decoder": {"block": {"in": {"kernel": jnp.arange(12.0).reshape(3, 2, 2)}}}, "embed": jnp.arange(4.0)}
    transform = leaves.per_layer(largest)
    found, _ = transform.update(tree, transform.init(tree), tree)
    np.testing.assert_array_equal(found["decoder"]["block"]["in"]["kernel"][:, 0, 1], [3, 7, 11])
    np.testing.assert_array_equal(found["embed"], 3)


def test_per_layer_sees_one_expert_at_a_time():
    """Of 2 layers of 3 experts each; and their biases as vectors."""
    seen = []
    shape_of = lambda leaf: seen.append(leaf.shape) or 0 * leaf + leaf.max()
    largest = optax.stateless(lambda updates, params: jax.tree.map(shape_of, updates))
    kernel, bias = jnp.arange(24.0).reshape(2, 3, 2, 2), jnp.arange(12.0).reshape(2, 3, 2)
    tree = {"encoder": {"block": {"feedforward": {"experts": {"in": {"bias": bias, "kernel": kernel}}}}}}
    transform = leaves.per_layer(largest)
    found, _ = transform.update(tree, transform.init(tree), tree)
    found = found["encoder"]["block"]["feedforward"]["experts"]["in"]
    assert seen == [(2,), (2, 2)]
    np.testing.assert_array_equal(found["kernel"][:, :, 0, 0], [[3, 7, 11], [15, 19, 23]])
    np.testing.assert_array_equal(found["bias"][:, :, 1], [[1, 3, 5], [7, 9, 11]])


def test_muon_turns_each_expert_by_itself():
    """The update of a stack of experts is that of each expert alone."""
    generator = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)
    muon = OPTIMIZERS["muon"](defaults("optimizer"), Parts(optax.identity(), optax.identity(), None))[0]
    path = ("decoder", "block", "feedforward", "experts", "out", "kernel")
    of = lambda kernel: flax.traverse_util.unflatten_dict({path: kernel})
    kernel = draw(2, 3, 5, 4)
    whole, _ = muon.update(of(kernel), muon.init(of(kernel)), of(kernel))
    for layer, expert in np.ndindex(2, 3):
        one = of(kernel[layer, expert][None, None])
        alone, _ = muon.update(one, muon.init(one), one)
        np.testing.assert_allclose(
            jax.tree.leaves(whole)[0][layer, expert], jax.tree.leaves(alone)[0][0, 0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_a_model_maps_its_inputs_to_its_outputs(tiny, family):
    """Width is 24, heads 4 of 8 channels, key and value heads 2, feed-forward 40; of its last stack."""
    params = shapes(Transformer(tiny(model__family=family, model__head_width=8).model))
    stack = "decoder" if "decoder" in params else "encoder"
    params = {stack: {"block": params[stack]["block"]}}
    numbers = jax.tree.leaves(leaves.dimensions(params), is_leaf=lambda node: isinstance(node, MuonDimensionNumbers))
    fans = {
        path.removeprefix(f"{stack}/block/"): [math.prod(leaf.shape[axis] for axis in axes) for axes in axes_of_both]
        for path, leaf, axes_of_both in zip(trees.paths(params), jax.tree.leaves(params), numbers, strict=True)
    }
    expected = {
        "attention/query/kernel": [24, 32],
        "attention/key/kernel": [24, 16],
        "attention/value/kernel": [24, 16],
        "attention/out/kernel": [32, 24],
        "cross_attention/query/kernel": [24, 32],
        "cross_attention/key/kernel": [24, 16],
        "cross_attention/value/kernel": [24, 16],
        "cross_attention/out/kernel": [32, 24],
        "feedforward/in/kernel": [24, 40],
        "feedforward/gate/kernel": [24, 40],
        "feedforward/out/kernel": [40, 24],
        "feedforward/router/kernel": [24, 8],
        "feedforward/experts/in/kernel": [24, 40],
        "feedforward/experts/gate/kernel": [24, 40],
        "feedforward/experts/out/kernel": [40, 24],
    }
    kernels = {path: pair for path, pair in fans.items() if path.endswith("kernel")}
    assert kernels == {path: pair for path, pair in expected.items() if path in fans} and len(kernels) >= 6
    out = numbers[list(fans).index("attention/out/kernel")]
    assert out.reduction_axis == (1, 2) and out.output_axis == (3,)
