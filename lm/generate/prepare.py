"""A model's parameters in; the same for reading token by token out: what is read in every step lies as it is read."""

import math
from functools import partial
from typing import Any

import jax

from lm import trees

# Path in a layer or beside them → axes of a kernel's inputs, after those the outputs; 0: only cast; None: as it is.
_INPUTS = (
    (r"router/", None),
    (r"experts/.*kernel$", 0),
    (r"attention/out/kernel$", 2),
    (r"kernel$", 1),
    (r"^embed/embedding$", 0),
    ("", None),
)


def ready(config: Any, params: Any) -> Any:
    """Return the parameters with a decoder's layers as a tuple, and kernels as `rows` that lead with their outputs.

    A step reads all of them and computes little. Out of a stack every layer would first be copied, and a dtype other
    than the model computes in be cast; a kernel whose outputs lead is read in one go.

    Args:
      config: config.model.
      params: of its Transformer; the encoder of an encoder–decoder stays as it is, since it reads once.
    """
    stack, dtype = params["decoder"], config.dtype
    layers = tuple(_ready(_layer(stack["block"], number), dtype) for number in range(config.layers))
    stacks = {"decoder": dict(stack) | {"block": layers}}
    if "encoder" in params:
        stacks["encoder"] = params["encoder"]
    return _ready({name: part for name, part in params.items() if name not in stacks}, dtype) | stacks


@jax.jit
def _layer(block: Any, number: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], block)


@partial(jax.jit, static_argnums=1)
def _ready(tree: Any, dtype: str) -> Any:
    """Return the tree with its kernels turned, but for those of experts, and cast."""
    return _walked(tree, dtype, "")


def _walked(tree: Any, dtype: str, path: str) -> Any:
    if not isinstance(tree, dict):
        return tree if trees.choose(path, _INPUTS) is None else tree.astype(dtype)
    found = {name: _walked(part, dtype, f"{path}/{name}".lstrip("/")) for name, part in tree.items()}
    inputs = trees.choose(f"{path}/kernel", _INPUTS)
    if "kernel" in found and inputs:
        kernel = found.pop("kernel")
        found["rows"] = kernel.reshape(math.prod(kernel.shape[:inputs]), -1).T
    return found
