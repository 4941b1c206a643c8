"""The optimizer and schedule sections: their fields, what is derived, what is refused."""

import itertools
from collections.abc import Mapping
from typing import Any

from lm.config.field import (
    EITHER,
    Field,
    Rule,
    above,
    all_regex,
    at_least,
    fraction,
    one_of,
    pairs,
    split,
    within,
)
from lm.refusal import Refusal

_FACTORS = pairs("REGEX")
_POINTS = pairs("STEP")


def _are_factors(texts: tuple[str, ...]) -> bool:
    return _FACTORS.holds(texts) and all_regex().holds(tuple(pattern for pattern, _ in split(texts)))


def _are_points(texts: tuple[str, ...]) -> bool:
    if not _POINTS.holds(texts) or not all(step.isdecimal() for step, _ in split(texts)):
        return False
    steps = [int(step) for step, _ in split(texts)]
    return all(before < after for before, after in itertools.pairwise(steps))


FIELDS = {
    "optimizer.name": Field(
        "adamw",
        "the update rule",
        one_of(
            adamw="Loshchilov & Hutter 2019",
            sgd="the gradient with momentum",
            adafactor="factored second moments, steps relative to the parameters' size: Shazeer & Stern 2018",
            lion="the sign of a momentum: Chen et al. 2023",
            lamb="Adam with a trust ratio per layer: You et al. 2020",
            muon="orthogonalised momentum for the blocks' matrices: Jordan et al. 2024; AdamW for the rest",
            schedule_free="AdamW with an average in place of a decaying rate: Defazio et al. 2024",
            ademamix="AdamW with a second, slow momentum: Pagliardini et al. 2024",
        ),
    ),
    "optimizer.b1": Field(0.9, "decay of the first moment (not adafactor)", fraction()),
    "optimizer.b2": Field(0.95, "decay of the second moment (lion: of its momentum; not sgd, adafactor)", fraction()),
    "optimizer.epsilon": Field(1e-8, "added to the root of the second moment (not sgd, adafactor, lion)", above(0)),
    "optimizer.muon_momentum": Field(0.95, "decay of the momentum that muon orthogonalises", fraction()),
    "optimizer.b3": Field(0.9999, "decay of ademamix's slow momentum", fraction()),
    "optimizer.alpha": Field(5.0, "weight of ademamix's slow momentum", at_least(0)),
    "optimizer.slow_warmup_steps": Field(
        0, "steps in which ademamix's alpha and b3 grow to their values; 0: none", at_least(0)
    ),
    "optimizer.weight_decay": Field(0.1, "decoupled decay, times the learning rate", at_least(0)),
    "optimizer.cautious_decay": Field(
        False, "decay only what the update makes smaller anyway: Chen et al. 2025", EITHER
    ),
    "optimizer.no_decay": Field(
        ("bias$", "scale$"), "parameters whose path matches one of these are not decayed", all_regex(), element=str
    ),
    "optimizer.rates": Field(
        (),
        "learning rates by path: the first regex found in a parameter's path gives a factor; none: 1; 0 freezes",
        Rule("texts 'REGEX=FACTOR' with regular expressions and factors of at least 0", _are_factors),
        element=str,
    ),
    "optimizer.clip": Field(1.0, "largest global norm of the gradient; 0: no clipping", at_least(0)),
    "schedule.name": Field(
        "cosine",
        "shape after warmup",
        one_of(
            constant="the peak",
            cosine="half a cosine from peak to final: Loshchilov & Hutter 2017",
            linear="a line from peak to final",
            wsd="the peak, then a decay to final: Hu et al. 2024",
            inverse_sqrt="peak · √(warmup / step): Vaswani et al. 2017",
            polynomial="a power of the share that is left, from peak to final",
            cosine_restarts="half cosines from peak to final, one after another: Loshchilov & Hutter 2017",
            points="lines between the rates of schedule.points",
        ),
    ),
    "schedule.peak": Field(1e-3, "learning rate at the end of warmup (not points)", above(0)),
    "schedule.final": Field(0.0, "learning rate after the last step (not constant, inverse_sqrt, points)", at_least(0)),
    "schedule.decay_fraction": Field(0.2, "share of train.steps in which wsd decays", within(0, 1)),
    "schedule.decay_shape": Field(
        "sqrt",
        "how wsd decays",
        one_of(
            linear="a line",
            cosine="half a cosine",
            sqrt="1 − √: Hägele et al. 2024",
            exponential="a constant factor per step",
        ),
    ),
    "schedule.power": Field(2.0, "exponent of polynomial", above(0)),
    "schedule.cycles": Field(4, "how often cosine_restarts falls from peak to final, equally long each", at_least(1)),
    "schedule.points": Field(
        (),
        "learning rates of points by step, counted from 0; before the first and after the last they stay",
        Rule("texts 'STEP=RATE' with whole steps that grow and rates of at least 0", _are_points),
        element=str,
    ),
    "schedule.warmup_steps": Field(None, "steps of linear warmup from 0; unset: none", at_least(0), kind=int),
    "schedule.warmup_fraction": Field(None, "warmup as a share of train.steps", within(0, 1), kind=float),
}


def fill(flat: dict[str, Any]) -> None:
    """Turn the warmup into steps, once the run's length is known."""
    if flat["schedule.warmup_steps"] is not None and flat["schedule.warmup_fraction"] is not None:
        raise Refusal(
            "warmup must be given by one of schedule.warmup_steps and schedule.warmup_fraction: both are set."
        )
    if flat["schedule.warmup_fraction"] is None:
        flat["schedule.warmup_steps"] = flat["schedule.warmup_steps"] or 0
    elif flat["train.steps"] is not None:
        flat["schedule.warmup_steps"] = round(flat["schedule.warmup_fraction"] * flat["train.steps"])
        flat["schedule.warmup_fraction"] = None


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot run."""
    _check_optimizer(flat)
    steps, warmup = flat["train.steps"], flat["schedule.warmup_steps"]
    if steps is not None and warmup is not None:
        _check_lengths(flat, steps, warmup)
    name, peak, final = flat["schedule.name"], flat["schedule.peak"], flat["schedule.final"]
    if final > peak:
        raise Refusal(f"schedule.final is {final}: it must be at most schedule.peak ({peak}).")
    if name == "wsd" and flat["schedule.decay_shape"] == "exponential" and final == 0:
        raise Refusal("schedule.final is 0.0: an exponential decay never gets there; set it above 0.")
    if name == "points" and not flat["schedule.points"]:
        raise Refusal("schedule.points is (): schedule.name 'points' needs at least one 'STEP=RATE'.")


def _check_optimizer(flat: Mapping[str, Any]) -> None:
    ema, dtype, is_free = flat["train.ema"], flat["model.parameter_dtype"], flat["optimizer.name"] == "schedule_free"
    if is_free and flat["optimizer.b1"] == 0:
        raise Refusal("optimizer.b1 is 0.0: schedule_free needs it above 0.")
    if flat["optimizer.name"] == "ademamix" and flat["optimizer.slow_warmup_steps"]:
        for name in ("optimizer.b1", "optimizer.b3"):
            if flat[name] == 0:
                raise Refusal(f"{name} is 0.0: optimizer.slow_warmup_steps grows b3 from b1, so both must be above 0.")
    if is_free and ema:
        raise Refusal(f"train.ema is {ema}: schedule_free averages the weights itself; set it to 0.")
    if (is_free or ema) and dtype != "float32":
        cause = f"train.ema is {ema}" if ema else "optimizer.name is 'schedule_free'"
        raise Refusal(f"{cause}, but model.parameter_dtype is {dtype!r}: an average of weights needs 'float32'.")


def _check_lengths(flat: Mapping[str, Any], steps: int, warmup: int) -> None:
    name = flat["schedule.name"]
    if warmup > steps:
        raise Refusal(f"schedule.warmup_steps is {warmup}: it must be at most train.steps ({steps}).")
    if name == "points" and warmup:
        raise Refusal(f"schedule.warmup_steps is {warmup}: schedule.points has its own warmup; leave it unset.")
    if name == "inverse_sqrt" and not warmup:
        raise Refusal("schedule.warmup_steps is 0: inverse_sqrt falls on the time scale of its warmup; set it above 0.")
    decay = round(flat["schedule.decay_fraction"] * steps)
    if name == "wsd" and warmup + decay > steps:
        raise Refusal(
            f"schedule.decay_fraction is {flat['schedule.decay_fraction']}: its {decay} steps and "
            f"schedule.warmup_steps ({warmup}) must fit into train.steps ({steps})."
        )
    cycles, rest = flat["schedule.cycles"], steps - warmup
    if name == "cosine_restarts" and cycles > rest:
        raise Refusal(f"schedule.cycles is {cycles}: it must be at most the steps after warmup ({rest}).")
