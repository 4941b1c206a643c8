"""Step → learning rate: linear warmup from 0, then a shape; Optax's own pieces, joined."""

import optax

SHAPES = {
    "constant": lambda peak, final, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, final, steps: optax.cosine_decay_schedule(peak, steps, alpha=final / peak),
    "linear": lambda peak, final, steps: optax.linear_schedule(peak, final, steps),
}


def schedule(section, steps: int) -> optax.Schedule:
    """Return the schedule of a run: step 0 is the first, and `final` is reached after the last (at `steps`).

    Args:
      section: config.schedule, resolved and bound.
      steps: length of the run.
    """
    warmup = section.warmup_steps
    shape = SHAPES[section.name](section.peak, section.final, max(1, steps - warmup))
    if warmup == 0:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, section.peak, warmup), shape], [warmup])
