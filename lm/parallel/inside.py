"""A mesh and specs over all of it in; the same for code that may run inside a shard_map, which has split axes, out."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel.mesh import AXES


def constrained(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Return the arrays, placed by what of the spec is still to be split."""
    here, axes = _left(mesh)
    return jax.lax.with_sharding_constraint(tree, NamedSharding(here, _among(axes, spec)))


def mapped(
    function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any, among: Iterable[str] = AXES, **more: Any
) -> Callable:
    """Return jax.shard_map of the function over those of the axes that are still to be split, if there are any."""
    here, axes = _left(mesh)
    axes &= set(among)
    if not axes:
        return function
    in_specs, out_specs = jax.tree.map(lambda spec: _among(axes, spec), (in_specs, out_specs))
    return jax.shard_map(function, mesh=here, in_specs=in_specs, out_specs=out_specs, axis_names=axes, **more)


def _left(mesh: Mesh) -> tuple[Any, frozenset[str]]:
    """Return the mesh as the code that is traced sees it, and those of its axes that no shard_map has split."""
    here = jax.sharding.get_abstract_mesh()
    return (mesh if here.empty else here), frozenset(mesh.axis_names) - frozenset(here.manual_axes)


def _among(axes: frozenset[str], spec: PartitionSpec) -> PartitionSpec:
    names = lambda entry: (entry,) if isinstance(entry, str) else entry or ()
    return PartitionSpec(*(tuple(axis for axis in names(entry) if axis in axes) or None for entry in spec))
