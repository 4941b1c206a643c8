"""What a mixture of experts' routers did in; the losses that keep its experts in use, added, and sums of it out."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Routed(NamedTuple):
    """Sums over a batch's rows, so that those of micro-batches add up to the batch's.

    balance, z: of the rows' statistics, mean of the layers, times the rows' weights.
    load: `(L, E)`, tokens that chose each expert. dropped: choices that found no place.
    """

    balance: Any
    z: Any
    load: Any
    dropped: Any


def routed(sums, routing, section, key):
    """Return what an objective's loss does of a pass whose Output has this routing; a dense model's sums as they are.

    In training, each row's load-balance and router z-loss are added, times its weight: divided by all weights, the
    total is then a mean over tokens whatever rows stand together.

    Args:
      sums: (sum of losses, sum of weights, losses.Rows).
      routing: of the Output, its arrays led by layers; or None.
      section: config.objective.
      key: of training; None: to evaluate.
    """
    if routing is None:
        return sums
    total, weight, rows = sums
    weighed = lambda statistic_LB: jnp.sum(jnp.mean(statistic_LB, axis=0) * rows.weights)
    found = Routed(
        balance=weighed(routing.balance),
        z=weighed(routing.z),
        load=jnp.sum(routing.load, axis=1),
        dropped=jnp.sum(routing.dropped),
    )
    if key is not None:
        total = total + section.balance_loss * found.balance + section.router_z_loss * found.z
    return total, weight, rows._replace(routed=found)
