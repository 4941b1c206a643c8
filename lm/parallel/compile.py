"""A pure step in; the same step compiled over a mesh out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel import rules
from lm.refusal import Refusal

_DEVICES = "devices"


def settled(section: Any, mesh: Mesh) -> ml_collections.FrozenConfigDict:
    """Return the model section with what depends on the devices settled."""
    values = section.to_dict()
    longest = max(section.layers, section.encoder_layers or 0)
    platform = mesh.devices.flat[0].platform
    values["unroll"] = values["unroll"] or (1 if platform == "tpu" else longest)
    if values["projections"] == "auto":
        values["projections"] = "joined" if platform == "cpu" and mesh.shape["tensor"] == 1 else "apart"
    return ml_collections.FrozenConfigDict(values)


class Across(NamedTuple):
    """How a step sees devices. total: a tree of sums over the rows it sees → the same over all rows; own: key → key of
    the rows it sees."""

    total: Callable[[Any], Any]
    own: Callable[[Any], Any]


# Under jit a step sees all rows, under pmap each device's own.
ACROSS = {
    "jit": Across(lambda tree: tree, lambda key: key),
    "pmap": Across(
        lambda tree: jax.lax.psum(tree, _DEVICES), lambda key: jax.random.fold_in(key, jax.lax.axis_index(_DEVICES))
    ),
}


def compile_step(step: Callable, state: Any, mesh: Mesh, how: str = "jit") -> Callable:
    """Return the step compiled: the state is donated and keeps its layout, the batch is split by rows.

    Args:
      step: (state, batch) → (state, metrics), made for ACROSS[how].
      state: a State of arrays or of their shapes.
      how: "jit" over the mesh; "pmap": every device has a whole state.
    """
    if how == "pmap":
        if jax.process_count() > 1:
            raise Refusal("parallel.compile is 'pmap': a run of several processes needs 'jit'.")
        mapped = jax.pmap(
            step, _DEVICES, in_axes=(None, 0), out_axes=None, devices=list(mesh.devices.flat), donate_argnums=0
        )
        split = lambda field: field.reshape(mesh.size, -1, *field.shape[1:])
        return lambda state, batch: mapped(state, jax.tree.map(split, batch))
    layout = rules.shardings(state, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, in_shardings=(layout, rules.rows(mesh)), out_shardings=(layout, whole), donate_argnums=0)


def initialise(create: Callable[[], Any], mesh: Mesh) -> Any:
    """Return `create()`, each leaf made where it belongs, never whole on one device."""
    layout = rules.shardings(jax.eval_shape(create), mesh)
    return jax.jit(create, out_shardings=layout)()


def continued(create: Callable[[Any], Any], params: Any, mesh: Mesh) -> Any:
    """Return `create(params)`, each leaf made where it belongs; the parameters are donated."""
    layout = rules.shardings(jax.eval_shape(create, params), mesh)
    return jax.jit(create, out_shardings=layout, donate_argnums=0)(params)
