"""Optimizer name → the Optax transformations that turn a clipped gradient into an update."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lm import trees
from lm.optim.leaves import BLOCK_MATRICES, dimensions, per_layer


class Parts(NamedTuple):
    """What an optimizer puts where it belongs, once each.

    decay: adds the decayed weights, by path. rate: times −(learning rate), by path. schedule: step → learning rate.
    """

    decay: optax.GradientTransformation
    rate: optax.GradientTransformation
    schedule: optax.Schedule


def _adam(section) -> optax.GradientTransformation:
    return optax.scale_by_adam(section.b1, section.b2, section.epsilon)


def _adafactor(section, parts):
    """Shazeer & Stern 2018, arXiv 1804.04235, algorithm 4 and §7: every matrix factored, β2 = 1 − t^−0.8, d = 1."""
    direction = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(1e-3),
    )
    return per_layer(direction), parts.decay, parts.rate


def _muon(section, parts):
    """Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the updates' size: Liu et al. 2025, arXiv 2502.16982."""
    orthogonal = optax.contrib.scale_by_muon(beta=section.muon_momentum, weight_dimension_numbers=dimensions)
    rules = ((BLOCK_MATRICES, "muon"), ("", "adam"))
    both = optax.partition(
        {"muon": optax.chain(orthogonal, optax.stateless(_as_large_as_adams)), "adam": _adam(section)},
        lambda tree: trees.select(tree, rules),
    )
    return both, parts.decay, parts.rate


def _as_large_as_adams(updates, params):
    """Scale orthogonal updates to a root mean square of 0.2, as AdamW's have (Liu et al. 2025, eq. 4)."""

    def scaled(leaf, numbers):
        fans = [math.prod(leaf.shape[axis] for axis in axes) for axes in numbers]
        return 0.2 * math.sqrt(max(fans)) * leaf

    return jax.tree.map(scaled, updates, dimensions(updates))


def _schedule_free(section, parts):
    """Defazio et al. 2024, arXiv 2405.15682, algorithm 1: parameters are y, where gradients are taken."""
    without_momentum = optax.scale_by_rms(section.b2, section.epsilon, eps_in_sqrt=False, bias_correction=True)
    base = optax.chain(without_momentum, parts.decay, parts.rate)
    weight = lambda count: parts.schedule(count - 1)  # Optax counts these from 1, the base's rates from 0
    return (optax.contrib.schedule_free(base, weight, section.b1),)


def _ademamix(section, parts):
    """Pagliardini et al. 2024, arXiv 2409.03137, algorithm 1, with its schedules of α and β3 (§3)."""
    steps, alpha, b3 = section.slow_warmup_steps, section.alpha, section.b3
    share = lambda count: jnp.minimum((count + 1) / steps, 1.0)
    if steps:
        low, high = math.log(section.b1), math.log(section.b3)
        alpha = lambda count: section.alpha * share(count)
        b3 = lambda count: jnp.exp(low * high / ((1 - share(count)) * high + share(count) * low))
    return optax.contrib.scale_by_ademamix(section.b1, section.b2, b3, alpha, section.epsilon), parts.decay, parts.rate


# Name → (section, parts) → the transformations after clipping, one after another.
OPTIMIZERS: dict[str, Callable[[Any, Parts], tuple[optax.GradientTransformation, ...]]] = {
    "adamw": lambda section, parts: (_adam(section), parts.decay, parts.rate),
    "sgd": lambda section, parts: (optax.trace(section.b1), parts.decay, parts.rate),
    "adafactor": _adafactor,
    "lion": lambda section, parts: (optax.scale_by_lion(section.b1, section.b2), parts.decay, parts.rate),
    "lamb": lambda section, parts: (_adam(section), parts.decay, per_layer(optax.scale_by_trust_ratio()), parts.rate),
    "muon": _muon,
    "schedule_free": _schedule_free,
    "ademamix": _ademamix,
}


def averaged(opt_state: Any, params: Any) -> Any:
    """Return the parameters to evaluate, x, where the optimizer keeps them apart from those it moves; else `params`."""
    is_found = lambda node: hasattr(node, "z") and hasattr(node, "weight_sum")
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_found) if is_found(node)]
    if not found:
        return params
    is_frozen = lambda node: isinstance(node, optax.MaskedNode)
    moved = jax.tree.map(lambda z, y: z if is_frozen(z) else y, found[0].z, params, is_leaf=is_frozen)
    mean = optax.contrib.schedule_free_eval_params(found[0], moved)
    return jax.tree.map(lambda x, y: y if is_frozen(x) else x, mean, params, is_leaf=is_frozen)
