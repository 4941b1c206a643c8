"""A model's parameters in; the same for reading token by token out: what is read in every step lies as it is read."""

import math
import re
from functools import partial
from typing import Any

import jax

from lm import trees
from lm.model.whole import rounded

# Path in a layer or beside them → axes of a kernel's inputs, after those the outputs; 0: a table; None: as it is, but
# for experts' kernels, which are cast: whole numbers would be made real of all experts, of which a token takes few.
_INPUTS = (
    (r"router/", None),
    (r"experts/.*kernel$", None),
    (r"attention/out/kernel$", 2),
    (r"kernel$", 1),
    (r"^embed/embedding$", 0),
    ("", None),
)


def ready(config: Any, params: Any, weight_dtype: str = "model") -> Any:
    """Return the parameters with a decoder's layers as a tuple, and kernels as `rows` that lead with their outputs.

    A step reads all of them and computes little. Out of a stack every layer would first be copied, and a dtype other
    than the model computes in be cast; a kernel whose outputs lead is read in one go.

    Args:
      config: config.model.
      params: of its Transformer; the encoder of an encoder–decoder stays as it is, since it reads once.
      weight_dtype: as sample.weight_dtype; with "int8" kernels and the embedding, but not those of experts, are
        whole.Whole, with a scale for every output.
    """
    stack, dtype = params["decoder"], config.dtype
    turned = partial(_ready, dtype=dtype, is_whole=weight_dtype == "int8")
    layers = tuple(turned(_layer(stack["block"], number)) for number in range(config.layers))
    stacks = {"decoder": dict(stack) | {"block": layers}}
    if "encoder" in params:
        stacks["encoder"] = params["encoder"]
    return turned({name: part for name, part in params.items() if name not in stacks}) | stacks


@jax.jit
def _layer(block: Any, number: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], block)


@partial(jax.jit, static_argnames=("dtype", "is_whole"))
def _ready(tree: Any, dtype: str, is_whole: bool) -> Any:
    """Return the tree with its kernels turned and cast, or made whole numbers."""
    return _walked(tree, "", dtype, is_whole)


def _walked(tree: Any, path: str, dtype: str, is_whole: bool) -> Any:
    held = rounded if is_whole else lambda array: array.astype(dtype)
    found = {}
    for name, part in tree.items():
        place = f"{path}/{name}".lstrip("/")
        inputs = trees.choose(place, _INPUTS)
        if isinstance(part, dict):
            found[name] = _walked(part, place, dtype, is_whole)
        elif inputs is None:
            found[name] = part.astype(dtype) if re.search(r"experts/.*kernel$", place) else part
        elif inputs:
            found["rows"] = held(part.reshape(math.prod(part.shape[:inputs]), -1).T)
        else:
            found["rows"] = held(part)
    return found
