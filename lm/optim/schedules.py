"""Step → learning rate: linear warmup from 0, then a shape; Optax's own pieces, joined."""

import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from lm.config.field import split

# Name → (peak, final, steps) → step → rate: how `wsd` falls.
DECAYS: dict[str, Callable[[float, float, int], optax.Schedule]] = {
    "linear": optax.linear_schedule,
    "cosine": lambda peak, final, steps: optax.cosine_decay_schedule(peak, steps, alpha=final / peak),
    # 1 − √ (Hägele et al. 2024, arXiv 2405.18392, §3)
    "sqrt": lambda peak, final, steps: lambda step: peak + (final - peak) * jnp.sqrt(jnp.clip(step / steps, 0.0, 1.0)),
    "exponential": lambda peak, final, steps: optax.exponential_decay(peak, steps, final / peak, end_value=final),
}


def _wsd(section, steps):
    """Return warmup–stable–decay without its warmup (Hu et al. 2024, arXiv 2404.06395, §4.2)."""
    decay = round(section.decay_fraction * (steps + section.warmup_steps))
    fall = DECAYS[section.decay_shape](section.peak, section.final, max(1, decay))
    return optax.join_schedules([optax.constant_schedule(section.peak), fall], [steps - decay])


def _inverse_sqrt(section, steps):
    """Return peak · √(warmup / step), counted from the run's start (Vaswani et al. 2017, arXiv 1706.03762, eq. 3)."""
    warmup = section.warmup_steps
    return lambda step: section.peak * jnp.sqrt(warmup / (warmup + jnp.maximum(step, 0)))


def _cosine_restarts(section, steps):
    """Return SGDR with cycles of one length (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)."""
    ends = [round(cycle * steps / section.cycles) for cycle in range(section.cycles + 1)]
    lengths = (end - start for start, end in itertools.pairwise(ends))
    cycles = [optax.cosine_decay_schedule(section.peak, n, alpha=section.final / section.peak) for n in lengths]
    return optax.join_schedules(cycles, ends[1:-1])


def _points(section, _):
    """Return the lines through the points, level before the first and after the last."""
    steps, rates = jnp.asarray([(float(step), rate) for step, rate in split(section.points)]).T
    return lambda step: jnp.interp(step, steps, rates)


# Name → (section, steps after warmup) → step since warmup → rate.
SHAPES: dict[str, Callable[[Any, int], optax.Schedule]] = {
    "constant": lambda section, steps: optax.constant_schedule(section.peak),
    "cosine": lambda section, steps: DECAYS["cosine"](section.peak, section.final, steps),
    "linear": lambda section, steps: DECAYS["linear"](section.peak, section.final, steps),
    "wsd": _wsd,
    "inverse_sqrt": _inverse_sqrt,
    "polynomial": lambda section, steps: optax.polynomial_schedule(section.peak, section.final, section.power, steps),
    "cosine_restarts": _cosine_restarts,
    "points": _points,
}


def schedule(section, steps: int) -> optax.Schedule:
    """Return the schedule of a run: step 0 is the first, and `final` is reached after the last (at `steps`).

    Args:
      section: config.schedule, resolved and bound.
      steps: length of the run.
    """
    warmup = section.warmup_steps
    shape = SHAPES[section.name](section, max(1, steps - warmup))
    if warmup == 0:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, section.peak, warmup), shape], [warmup])


def moves(section, before: int, after: int, start: int) -> bool:
    """Say whether a run of `after` steps has other rates from step `start` on than one of `before` steps had."""
    steps = jnp.arange(start, after)
    rates = [jnp.broadcast_to(schedule(section, length)(steps), steps.shape) for length in (before, after)]
    return bool(jnp.any(rates[0] != rates[1]))
