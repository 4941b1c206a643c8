"""A pure step in; the same step compiled over a mesh out."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel import rules


def compile_step(step: Callable, state: Any, mesh: Mesh) -> Callable:
    """Return `jit(step)`: the state is donated and keeps its layout, the batch is split by rows.

    Args:
      step: (state, batch) → (state, metrics).
      state: a State of arrays or of their shapes.
    """
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
