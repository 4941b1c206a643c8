"""Sections and a schedule in; one Optax transformation out: clip → core → decay, by path → schedule."""

import optax

from lm import trees
from lm.optim.optimizers import OPTIMIZERS


def optimizer(section, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a run (AdamW: Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    Args:
      section: config.optimizer.
      schedule: step → learning rate.
    """
    rules = [*((pattern, False) for pattern in section.no_decay), ("", True)]
    return optax.chain(
        optax.clip_by_global_norm(section.clip) if section.clip else optax.identity(),
        OPTIMIZERS[section.name](section),
        optax.add_decayed_weights(section.weight_decay, mask=lambda params: trees.select(params, rules)),
        optax.scale_by_learning_rate(schedule),
    )
