"""Parameters that are ready to be read token by token, and what was read, in; how they are laid over the mesh out.

Every step reads all weights, so none of them is gathered: heads, feed-forward width and vocabulary are split along
tensor, experts along expert, and what is of a text along the rows' axes.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm import trees
from lm.parallel import rules
from lm.refusal import Refusal

_ROWS = rules.ROWS[0]

# First match wins. Prepared kernels, `rows`, lead with their outputs (lm/generate/prepare.py); an encoder's are as the
# model has them, its layers stacked.
PARAMETERS = (
    (r"^encoder/block/.*(query|key|value|in|gate)/kernel$", PartitionSpec(None, None, "tensor")),
    (r"^encoder/block/.*out/kernel$", PartitionSpec(None, "tensor")),
    (r"experts/(in|gate)/kernel$", PartitionSpec("expert", None, "tensor")),
    (r"experts/out/kernel$", PartitionSpec("expert", "tensor")),
    (r"(query|key|value|in|gate)/rows", PartitionSpec("tensor")),
    (r"(attention|feedforward)/out/rows/scale$", PartitionSpec()),
    (r"(attention|feedforward)/out/rows", PartitionSpec(None, "tensor")),
    (r"^(embed|head)/rows", PartitionSpec("tensor")),
    ("", PartitionSpec()),
)

READING = (
    (r"^cache/\d+/(key|value)\b", PartitionSpec(_ROWS, "tensor")),
    (r"^cache/\d+/memory_(key|value)$", PartitionSpec(_ROWS, None, "tensor")),
    ("", PartitionSpec(_ROWS)),
)


def shardings(tree: Any, mesh: Mesh, table: tuple = PARAMETERS) -> Any:
    """Return the tree of shardings of prepared parameters; with READING of what lm/generate/decode.py has read.

    Raises:
      Refusal: an axis that is split does not divide by the mesh.
    """
    layout = jax.tree.map(lambda spec: NamedSharding(mesh, spec), trees.select(tree, table))
    for path, leaf, sharding in zip(trees.paths(tree), jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True):
        for size, axes in zip(leaf.shape, sharding.spec, strict=False):
            names = (axes,) if isinstance(axes, str) else axes or ()
            count = math.prod(mesh.shape[axis] for axis in names)
            if size % count:
                raise Refusal(
                    f"parallel.mesh.{' × '.join(names)} is {count}: it must divide {size}, an axis of {path}."
                )
    return layout
