"""Optimizer name → the Optax transformation that turns a gradient into a direction, before decay and schedule."""

import optax

OPTIMIZERS = {
    "adamw": lambda section: optax.scale_by_adam(section.b1, section.b2, section.epsilon),
}
