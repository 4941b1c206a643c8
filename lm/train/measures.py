"""Gradients, updates and routes of a step in; what is measured of them out, scalars by the name of their row."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm import trees


def micro_batch(weight: Any, by_params: Any) -> tuple[Any, Any]:
    """Return what `noise` needs of a micro-batch: the squared norm of its mean gradient, and 1 / its weight.

    Args:
      weight: sum of its weights.
      by_params: its gradient, summed over weights.
    """
    share = 1 / jnp.maximum(weight, 1)
    return _norm(by_params) ** 2 * share**2, share


def noise(parts: tuple[Any, Any], square: Any, weight: Any, count: int) -> dict[str, Any]:
    """Return one step's estimate of the gradient noise scale (McCandlish et al. 2018, arXiv 1812.06162, A.1).

    noise/trace: of the covariance of one token's gradient. noise/square: squared norm of the true gradient.
    noise/scale: their ratio, the batch size in tokens at which noise and signal are equal. Trace and square are
    unbiased, where weights are 0 or 1; a ratio of their means over many steps is better than a mean of ratios.

    Args:
      parts: `micro_batch` of every micro-batch, summed.
      square: squared norm of the whole batch's mean gradient.
      weight: sum of the whole batch's weights.
      count: number of micro-batches.
    """
    small, share = (part / count for part in parts)
    trace = (small - square) / (share - 1 / weight)
    signal = square - trace / weight
    return {"noise/trace": trace, "noise/square": signal, "noise/scale": trace / signal}


def group_norms(patterns: Sequence[str], params: Any, by_params: Any, updates: Any) -> dict[str, Any]:
    """Return the norms of the parameters, gradients and updates whose path matches, for each regular expression."""
    norms = {}
    for pattern in patterns:
        chosen = lambda tree, pattern=pattern: [
            leaf
            for path, leaf in zip(trees.paths(tree), jax.tree.leaves(tree), strict=True)
            if re.search(pattern, path)
        ]
        norms[f"param_norm/{pattern}"] = _norm(chosen(params))
        norms[f"grad_norm/{pattern}"] = _norm(chosen(by_params))
        norms[f"update_norm/{pattern}"] = _norm(chosen(updates))
    return norms


def experts(routed: Any, weight: Any) -> dict[str, Any]:
    """Return how a mixture of experts was used.

    train/balance, train/router_z: what the objective multiplies by balance_loss and router_z_loss, means over tokens
    and layers. experts/load_max, experts/load_min: tokens of the busiest and of the least busy expert of any layer,
    divided by those of each if all were alike. experts/dropped: share of choices that found no place.

    Args:
      routed: sums over the batch, as an objective's loss returns them.
      weight: sum of the batch's weights.
    """
    choices_L = jnp.sum(routed.load, axis=1)
    shares_LE = routed.load * routed.load.shape[1] / jnp.maximum(choices_L, 1)[:, None]
    return {
        "train/balance": routed.balance / weight,
        "train/router_z": routed.z / weight,
        "experts/load_max": jnp.max(shares_LE),
        "experts/load_min": jnp.min(shares_LE),
        "experts/dropped": routed.dropped / jnp.maximum(jnp.sum(choices_L), 1),
    }


def _norm(tree: Any) -> Any:
    return optax.tree.norm(optax.tree.cast(tree, jnp.float32))
