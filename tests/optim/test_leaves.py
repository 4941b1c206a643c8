"""Layers as leaves of their own, kernels as matrices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from lm import trees
from lm.families.catalog import FAMILIES
from lm.model.transformer import Transformer
from lm.optim import leaves
from lm.weights.place import shapes


def test_per_layer_sees_one_layer_at_a_time():
    """Each leaf's largest entry, seen through a transformation that knows nothing of layers."""
    largest = optax.stateless(lambda updates, params: jax.tree.map(lambda leaf: 0 * leaf + leaf.max(), updates))
    tree = {"decoder": {"block": {"in": {"kernel": jnp.arange(12.0).reshape(3, 2, 2)}}}, "embed": jnp.arange(4.0)}
    transform = leaves.per_layer(largest)
    found, _ = transform.update(tree, transform.init(tree), tree)
    np.testing.assert_array_equal(found["decoder"]["block"]["in"]["kernel"][:, 0, 1], [3, 7, 11])
    np.testing.assert_array_equal(found["embed"], 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_a_model_maps_its_inputs_to_its_outputs(tiny, family):
    """Width is 24, heads 4 of 6 channels, key and value heads 2, the feed-forward 40 wide."""
    params = {"decoder": {"block": shapes(Transformer(tiny(model__family=family).model))["decoder"]["block"]}}
    numbers = jax.tree.leaves(leaves.dimensions(params), is_leaf=lambda node: isinstance(node, MuonDimensionNumbers))
    fans = {
        path.removeprefix("decoder/block/"): [math.prod(leaf.shape[axis] for axis in axes) for axes in axes_of_both]
        for path, leaf, axes_of_both in zip(trees.paths(params), jax.tree.leaves(params), numbers, strict=True)
    }
    expected = {
        "attention/query/kernel": [24, 24],
        "attention/key/kernel": [24, 12],
        "attention/value/kernel": [24, 12],
        "attention/out/kernel": [24, 24],
        "feedforward/in/kernel": [24, 40],
        "feedforward/gate/kernel": [24, 40],
        "feedforward/out/kernel": [40, 24],
    }
    kernels = {path: pair for path, pair in fans.items() if path.endswith("kernel")}
    assert kernels == {path: pair for path, pair in expected.items() if path in fans} and len(kernels) >= 6
    out = numbers[list(fans).index("attention/out/kernel")]
    assert out.reduction_axis == (1, 2) and out.output_axis == (3,)
