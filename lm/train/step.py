"""One update, pure: (state, batch) → (state, metrics)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lm.batch import Batch
from lm.objective.base import Forward, Objective
from lm.train.state import State


def make_step(
    objective: Objective,
    forward: Forward,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    accumulate: int,
) -> Callable[[State, Batch], tuple[State, dict]]:
    """Return the step. Its metrics are scalars on the device:

    loss: mean over the batch's weights, nats per token. grad_norm: of the mean gradient, before clipping.
    learning_rate: the one applied. skipped: steps so far that changed nothing. non_finite: −1, or the index of
    the first parameter (in `trees.paths` order) whose gradient is not finite; len(params) means the loss.
    """

    def sums(params, batch, key):
        total, weight, _ = objective.loss(forward, params, batch, key)
        return total, weight

    gradient = jax.value_and_grad(sums, has_aux=True)

    def step(state: State, batch: Batch) -> tuple[State, dict]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulate == 1:
            (total, weight), by_params = gradient(state.params, batch, key)
        else:
            total, weight, by_params = _accumulated(gradient, state.params, batch, key, accumulate)
        weight = jnp.maximum(weight, 1)
        loss = total / weight
        by_params = jax.tree.map(lambda leaf: leaf / weight.astype(leaf.dtype), by_params)
        squares = jnp.stack([jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(by_params)])
        is_bad = ~jnp.isfinite(jnp.append(squares, loss))
        is_good = ~is_bad.any()
        updates, opt_state = optimizer.update(by_params, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = lambda new, old: jnp.where(is_good, new, old)
        metrics = {
            "loss": loss,
            "learning_rate": schedule(state.step - state.skipped),
            "grad_norm": jnp.sqrt(squares.sum()),
            "skipped": state.skipped + ~is_good,
            "non_finite": jnp.where(is_good, -1, jnp.argmax(is_bad)),
        }
        state = State(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, state.opt_state),
            skipped=metrics["skipped"],
        )
        return state, metrics

    return step


def _accumulated(gradient, params, batch, key, count):
    """Return (sum of losses, sum of weights, sum of gradients) over `count` micro-batches, one after another.

    A micro-batch takes every count-th row, so that each device keeps the rows it has.
    """
    cut = lambda field: jnp.moveaxis(field.reshape(-1, count, *field.shape[1:]), 1, 0)

    def body(sums, inputs):
        index, micro_batch = inputs
        (total, weight), by_params = gradient(params, micro_batch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, sums, (total, weight, by_params)), None

    first = jax.eval_shape(gradient, params, jax.tree.map(lambda field: field[: field.shape[0] // count], batch), key)
    (total, weight), by_params = first
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (total, weight, by_params))
    return jax.lax.scan(body, zeros, (jnp.arange(count), Batch(*map(cut, batch))))[0]
