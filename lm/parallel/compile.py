"""A pure step in; the same step compiled over a mesh out."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel import rules
from lm.parallel.mesh import COPIES
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


def of_all(sums: Callable) -> Callable:
    """Return the function: what it sees is all rows."""
    return sums


def _over_mesh(mesh: Mesh, train: Any, model: Any) -> Callable[[Callable], Callable]:
    """Return how sums come about under jit, where a step sees all rows: apart, if that saves adding."""
    copies = tuple(axis for axis in COPIES if mesh.shape[axis] > 1)
    # Noise is measured of the gradients of whole micro-batches; what is drawn for a row must not depend on the mesh.
    is_one = train.noise_scale or model.dropout or model.token_dropout or model.stochastic_depth
    return functools.partial(_of_copies, mesh, copies) if copies and train.accumulate > 1 and not is_one else of_all


def _of_devices(sums: Callable) -> Callable:
    own = lambda key: jax.random.fold_in(key, jax.lax.axis_index(_DEVICES))
    return lambda shared, batch, key: jax.lax.psum(sums(shared, batch, own(key)), _DEVICES)


def _of_copies(mesh: Mesh, axes: tuple[str, ...], sums: Callable) -> Callable:
    """Return the sums, which devices that have the same parameters make of their own rows and then add once.

    Left to the compiler, they would add the gradients of every micro-batch: it keeps none that are sums of a part.
    """
    total = lambda *inputs: jax.lax.psum(sums(*inputs), axes)
    rows, shared = PartitionSpec(axes), PartitionSpec()
    specs = {"in_specs": (shared, rows, shared), "out_specs": shared, "axis_names": set(axes)}
    return jax.shard_map(total, mesh=mesh, check_vma=False, **specs)  # else gradients would be added at once


# By config.parallel.compile: (mesh, config.train, config.model) → (function of (what all rows share, batch, key) →
# sums over its rows) → the same over all rows. Under pmap a step sees each device's own.
ACROSS = {"jit": _over_mesh, "pmap": lambda mesh, train, model: _of_devices}


def compile_step(step: Callable, state: Any, mesh: Mesh, how: str = "jit") -> Callable:
    """Return the step compiled: the state is donated and keeps its layout, the batch is split by rows.

    Args:
      step: (state, batch) → (state, metrics), made with ACROSS[how].
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
