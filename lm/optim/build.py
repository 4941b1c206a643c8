"""Sections and a schedule in; one Optax transformation out: clip → core → decay → schedule; by path, also freezing."""

import jax
import jax.numpy as jnp
import optax

from lm import trees
from lm.config.field import split
from lm.optim.optimizers import OPTIMIZERS, Parts


def optimizer(section, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a run (AdamW: Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    Args:
      section: config.optimizer.
      schedule: step → learning rate.
    """
    factors = [*split(section.rates), ("", 1.0)]
    rate = optax.scale_by_learning_rate(schedule)
    if section.rates:
        rate = optax.chain(rate, optax.stateless(lambda updates, params: _scaled(updates, factors)))
    whole = optax.chain(
        optax.clip_by_global_norm(section.clip) if section.clip else optax.identity(),
        *OPTIMIZERS[section.name](section, Parts(_decay(section), rate, schedule)),
    )
    if not any(factor == 0 for _, factor in factors):
        return whole
    labels = [(pattern, "moved" if factor else "frozen") for pattern, factor in factors]
    return optax.partition({"moved": whole, "frozen": optax.set_to_zero()}, lambda params: trees.select(params, labels))


def _decay(section) -> optax.GradientTransformation:
    """Add weight_decay times the parameter to updates, by path; cautiously only where both have one sign.

    Cautious: Chen et al. 2025, arXiv 2510.12402, algorithm 1.
    """
    rules = [*((pattern, False) for pattern in section.no_decay), ("", True)]
    decay = optax.add_decayed_weights(section.weight_decay)
    if section.cautious_decay:
        decay = optax.stateless(
            lambda updates, params: jax.tree.map(
                lambda update, param: update + section.weight_decay * jnp.where(update * param >= 0, param, 0),
                updates,
                params,
            )
        )
    return optax.masked(decay, lambda params: trees.select(params, rules))


def _scaled(updates, factors):
    return jax.tree.map(lambda update, factor: factor * update, updates, trees.select(updates, factors))
