"""Stacked parameters in, as the model has them; for rules per leaf, a leaf per layer (and expert), as matrices, out."""

import math
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from lm import trees

BLOCK_MATRICES = r"/block/.*kernel$"

# Path → (axes that number layers and their experts, axes that are a matrix's inputs); the rest are its outputs. No
# inputs: a vector.
_AXES = (
    (r"/block/(cross_)?attention/out/kernel$", (1, 2)),
    (r"/block/feedforward/experts/.*kernel$", (2, 1)),
    (r"/block/feedforward/experts/", (2, 0)),
    (BLOCK_MATRICES, (1, 1)),
    (r"/block/", (1, 0)),
    (r"values/embedding$", (0, 2)),  # tables and ids are its rows
    (r"(kernel|embedding)$", (0, 1)),
    ("", (0, 0)),
)


def dimensions(tree: Any) -> Any:
    """Return the tree of Muon's dimension numbers: a kernel's axes of inputs, and those of outputs."""

    def numbers(leaf: jax.Array, axes: tuple[int, int]) -> MuonDimensionNumbers:
        outputs = sum(axes)
        return MuonDimensionNumbers(tuple(range(axes[0], outputs)), tuple(range(outputs, leaf.ndim)))

    return _map(numbers, tree)


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `inner` as it acts where each layer's and expert's parameters are leaves of their own, kernels matrices.

    Its state is what `inner` keeps of such leaves, those of the layers along a first axis, their experts' along a
    second.
    """

    def each(function):
        """Map over the layers, of which there are none where all are frozen."""
        return lambda first, *rest: (jax.vmap(function) if jax.tree.leaves(first) else function)(first, *rest)

    stacked = optax.GradientTransformation(each(inner.init), each(inner.update))
    experts = optax.GradientTransformation(each(stacked.init), each(stacked.update))
    kinds = {"single": inner, "stacked": stacked, "experts": experts}
    both = optax.partition(kinds, lambda tree: _map(lambda leaf, axes: list(kinds)[axes[0]], tree))

    def update(updates, state, params):
        flat, state = both.update(_flat(updates), state, _flat(params))
        return jax.tree.map(lambda leaf, like: leaf.reshape(like.shape), flat, updates), state

    return optax.GradientTransformation(lambda params: both.init(_flat(params)), update)


def _flat(tree: Any) -> Any:
    """Return the tree with kernels as matrices, inputs first, and all that is no matrix as vectors."""

    def flat(leaf: jax.Array, axes: tuple[int, int]) -> jax.Array:
        layers, inputs = leaf.shape[: axes[0]], leaf.shape[axes[0] : sum(axes)]
        return leaf.reshape(*layers, *([math.prod(inputs)] if inputs else []), -1)

    return _map(flat, tree)


def _map(function: Any, tree: Any) -> Any:
    """Return the tree of function(leaf, its _AXES)."""
    leaves, treedef = jax.tree.flatten(tree)
    axes = [trees.choose(path, _AXES) for path in trees.paths(tree)]
    return treedef.unflatten(map(function, leaves, axes))
