"""One update, pure: (state, batch) → (state, metrics)."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.batch import Batch
from lm.growth import Growth
from lm.objective.base import Forward, Objective
from lm.parallel.compile import of_all
from lm.train import measures
from lm.train.state import State


def make_step(
    objective: Objective,
    forward: Forward,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
    section: Any,
    sources: Sequence[str] = (),
    across: Callable[[Callable], Callable] = of_all,
) -> Callable[[State, Batch], tuple[State, dict]]:
    """Return the step; `section` is config.train, `sources` names a mixture's parts, `across` says who sums
    over which rows (lm/parallel/compile.py).

    Its metrics are scalars:

    loss: mean of −log p(target) over the batch's weights, nats per token. objective: the same with what the
    objective adds, which is what the step makes smaller. grad_norm: of the mean gradient, before clipping.
    learning_rate: the one applied. skipped: steps so far that changed nothing. non_finite: −1, or the index of
    the first parameter (in `trees.paths` order) whose gradient is not finite; len(params) means the loss.
    train/SOURCE/loss: of the rows of a source; not a number where there are none. And what train.noise_scale and
    train.group_norms add, and a mixture of experts, see `measures`.
    """

    def sums(params, batch, key):
        total, weight, rows = objective.loss(forward, params, batch, key)
        parts = [_whole_and_parts(sums_B, batch.source, len(sources)) for sums_B in (rows.nats, rows.weights)]
        return total, (weight, parts, rows.routed)

    def gradient(params, batch, key):
        (total, (weight, parts, routed)), by_params = jax.value_and_grad(sums, has_aux=True)(params, batch, key)
        noise = measures.micro_batch(weight, by_params) if section.noise_scale else None
        by_params = optax.tree.cast(by_params, jnp.float32)  # since sums of many are to come
        return total, weight, by_params, parts, routed, noise

    def gradient_sums(shared, batch, key):
        params, number = shared
        if section.accumulate == 1:
            return gradient(params, batch, key)
        return _accumulated(functools.partial(gradient, params), batch, key, section, number)

    summed = across(gradient_sums)

    def step(state: State, batch: Batch) -> tuple[State, dict]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        total, weight, by_params, parts, routed, noise = summed((state.params, state.step), batch, key)
        weight = jnp.maximum(weight, 1)
        by_params = jax.tree.map(lambda leaf, like: (leaf / weight).astype(like.dtype), by_params, state.params)
        squares = jnp.stack([jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(by_params)])
        is_bad = ~jnp.isfinite(jnp.append(squares, total))
        is_good = ~is_bad.any()
        updates, opt_state = optimizer.update(by_params, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = lambda new, old: jnp.where(is_good, new.astype(old.dtype), old)
        metrics = {
            "loss": parts[0][0] / weight,
            "objective": total / weight,
            "learning_rate": schedule(state.step - state.skipped),
            "grad_norm": jnp.sqrt(squares.sum()),
            "skipped": state.skipped + ~is_good,
            "non_finite": jnp.where(is_good, -1, jnp.argmax(is_bad)),
        }
        if section.noise_scale:
            metrics |= measures.noise(noise, squares.sum(), weight, section.accumulate)
        metrics |= measures.group_norms(section.group_norms, state.params, by_params, updates)
        metrics |= {f"train/{name}/loss": parts[0][part] / parts[1][part] for part, name in enumerate(sources, 1)}
        if routed is not None:
            metrics |= measures.experts(routed, weight)
        ema = state.ema
        if section.ema:
            count = state.step - state.skipped + 1
            ema = jax.tree.map(keep, _followed(ema, params, section.ema, count), ema)
        state = State(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, state.opt_state),
            skipped=metrics["skipped"],
            ema=ema,
        )
        return state, metrics

    return step


def _whole_and_parts(sums_B, source_B, count):
    """Return the sum of all rows and of each source's, `(1 + count,)`."""
    of_source = jnp.where(source_B[None] == jnp.arange(count)[:, None], sums_B[None], 0)
    return jnp.append(jnp.sum(sums_B), jnp.sum(of_source, axis=1))


def _followed(ema, params, decay, count):
    """Return the average of the weights after each of `count` steps, the last counting most.

    Adam's bias-corrected average (Kingma & Ba 2015, arXiv 1412.6980, §3) as a recursion: the first weights, random,
    have no part in it.
    """
    share = jnp.expm1(math.log(decay)) / jnp.expm1(count * math.log(decay))  # (1 − decay) / (1 − decay^count)
    return optax.incremental_update(params, ema, share)


def _accumulated(gradient, batch, key, section, step):
    """Return what `gradient` does, summed over micro-batches, one after another.

    A micro-batch takes every count-th row, so that each device keeps the rows it has. During a batch warm-up those
    that take no part yet are not computed.
    """
    count = section.accumulate
    cut = lambda field: jnp.moveaxis(field.reshape(-1, count, *field.shape[1:]), 1, 0)
    parts = jax.tree.map(cut, batch)

    def body(sums, inputs):
        index, micro_batch = inputs
        return jax.tree.map(jnp.add, sums, gradient(micro_batch, jax.random.fold_in(key, index))), None

    shapes = jax.eval_shape(gradient, jax.tree.map(lambda field: field[0], parts), key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if not section.batch_warmup_steps:
        return jax.lax.scan(body, zeros, (jnp.arange(count), parts))[0]
    joins = Growth(count, count, section.batch_warmup_steps).joins
    joined = jnp.sum(jnp.asarray(joins) <= step)
    part = lambda index: jax.tree.map(lambda field: field[index], parts)
    return jax.lax.fori_loop(0, joined, lambda index, sums: body(sums, (index, part(index)))[0], zeros)
