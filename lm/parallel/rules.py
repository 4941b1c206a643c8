"""Paths of the state in, how each leaf is laid over the mesh out; and the same for named activations."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm import trees
from lm.batch import Batch
from lm.parallel import inside
from lm.parallel import mesh as meshes
from lm.refusal import Refusal

ROWS = PartitionSpec(meshes.ROWS)

# First match wins. Stacked layers lead with their own axis. The width of every matrix is split along fsdp; heads,
# feed-forward width and vocabulary along tensor (Shoeybi et al. 2019, arXiv 1909.08053, §3); experts along expert.
# Moments have the paths of their parameters behind their own, so that the same rules hold for them.
PARAMETERS = (
    (r"opt_state/.*/(v|v_row|v_col)/", PartitionSpec()),  # factored second moments, which are vectors
    (r"block/feedforward/experts/(in|gate)/kernel$", PartitionSpec(None, "expert", "fsdp", "tensor")),
    (r"block/feedforward/experts/out/kernel$", PartitionSpec(None, "expert", "tensor", "fsdp")),
    (r"block/feedforward/router/kernel$", PartitionSpec(None, "fsdp")),
    (r"block/.*(query|key|value|in|gate)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"block/(cross_)?attention/out/kernel$", PartitionSpec(None, "tensor", None, "fsdp")),
    (r"block/feedforward/out/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"embed/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"values/embedding$", PartitionSpec(None, None, "fsdp")),
    (r"(positions|types)/embedding$", PartitionSpec()),  # small, and split they would have to be gathered twice a step
    (r"head/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(head/dense|pooler)/kernel$", PartitionSpec("fsdp")),
    (r"block/feedforward/experts/(in|gate)/bias$", PartitionSpec(None, "expert", "tensor")),
    (r"block/feedforward/experts/out/bias$", PartitionSpec(None, "expert")),
    (r"block/.*(query|key|value|in|gate)/bias$", PartitionSpec(None, "tensor")),
    (r"(bias|scale)$", PartitionSpec()),
    (r"(step|skipped|count|count_m2|ns_coeffs)$", PartitionSpec()),
    (r"/(b1|weight_sum|step_count|max_lr)$", PartitionSpec()),  # of schedule_free
)

ACTIVATIONS = {
    "hidden": PartitionSpec(meshes.ROWS, "sequence"),
    "embedding": PartitionSpec("tensor"),  # its width is gathered before rows are looked up, as a layer's weights are
    "experts": PartitionSpec(tuple(axis for axis in meshes.ROWS if axis != "expert"), "expert"),  # tokens go to them
}


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the tree of shardings of a State, parameters or moments (arrays or their shapes).

    Raises:
      Refusal: an axis that is split does not divide by the mesh.
    """
    specs = trees.select(tree, PARAMETERS)
    for path, leaf, spec in zip(trees.paths(tree), jax.tree.leaves(tree), jax.tree.leaves(specs), strict=True):
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis and size % mesh.shape[axis]:
                raise Refusal(f"parallel.mesh.{axis} is {mesh.shape[axis]}: it must divide {size}, an axis of {path}.")
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def rows(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is a batch's rows."""
    return NamedSharding(mesh, ROWS)


def check_lengths(mesh: Mesh, row: Batch) -> None:
    """Refuse a row whose tokens, or those of its encoder, do not divide along the axis sequence."""
    count = mesh.shape["sequence"]
    for length in sorted({field.shape[-1] for field in row if field is not None and np.ndim(field)}):
        if length % count:
            raise Refusal(f"parallel.mesh.sequence is {count}: it must divide {length}, the tokens of a row.")


def constrain(mesh: Mesh) -> Callable[[Any, str], Any]:
    """Return (array, name) → the array, placed as ACTIVATIONS says; for the model to call."""
    return lambda array, name: inside.constrained(array, mesh, ACTIVATIONS[name])


def by_rows(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Return (function of what all rows share and of arrays led by rows) → the same, run by each device on its rows.

    For the model to call where what is computed of a row needs no other, but the compiler cannot see it. What the
    function returns is led by rows too.
    """
    return lambda function: inside.mapped(function, mesh, (PartitionSpec(), ROWS), ROWS)


def apart(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Return what by_rows does, but of what else is split the compiler is to see how; for the loss to call.

    What rows share has its gradients added once, behind the function.
    """
    axes = tuple(
        axis for axis in meshes.ROWS if mesh.shape[axis] > 1
    )  # XLA cannot add over one device in part of a mesh
    specs = (PartitionSpec(), PartitionSpec(axes)), PartitionSpec(axes)
    return lambda function: inside.mapped(function, mesh, *specs, among=axes, check_vma=False)
