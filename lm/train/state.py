"""The State: all that goes from step to step."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class State(NamedTuple):
    """step: int32, steps done. params, opt_state: pytrees. skipped: int32, steps that changed nothing."""

    step: Any
    params: Any
    opt_state: Any
    skipped: Any


def create(params, optimizer) -> State:
    """Return the state before the first step."""
    return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), jnp.zeros((), jnp.int32))
