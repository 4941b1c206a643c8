"""The State: all that goes from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.optim.optimizers import averaged


class State(NamedTuple):
    """step: int32, steps done. params, opt_state: pytrees. skipped: int32, steps that changed nothing.

    ema: running average of params, where the run keeps one.
    """

    step: Any
    params: Any
    opt_state: Any
    skipped: Any
    ema: Any = None


def create(params, optimizer, is_averaged: bool = False) -> State:
    """Return the state before the first step."""
    zero = lambda: jnp.zeros((), jnp.int32)
    return State(
        zero(), params, optimizer.init(params), zero(), jax.tree.map(jnp.copy, params) if is_averaged else None
    )


def evaluated(state: State) -> Any:
    """Return the weights to measure, draw from and hand on: the average where there is one, else `state.params`."""
    return averaged(state.opt_state, state.params) if state.ema is None else state.ema
