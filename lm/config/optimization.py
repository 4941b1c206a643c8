"""The objective, optimizer and schedule sections: their fields, what is derived, what is refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.field import FREE, Field, above, all_regex, at_least, fraction, one_of, within
from lm.refusal import Refusal

FIELDS = {
    "objective.name": Field(
        "causal", "what is predicted", one_of(causal="the next token, from those before it in its record")
    ),
    "objective.chunk_tokens": Field(4096, "most tokens whose logits exist at once", at_least(1), FREE),
    "objective.label_smoothing": Field(
        0.0, "share of the target that goes to all ids alike, in training: Szegedy et al. 2016", fraction()
    ),
    "objective.z_loss": Field(
        0.0, "times log² of the softmax's denominator, added in training: Chowdhery et al. 2022 (1e-4)", at_least(0)
    ),
    "optimizer.name": Field("adamw", "the update rule", one_of(adamw="Loshchilov & Hutter 2019")),
    "optimizer.b1": Field(0.9, "decay of the first moment", fraction()),
    "optimizer.b2": Field(0.95, "decay of the second moment", fraction()),
    "optimizer.epsilon": Field(1e-8, "added to the root of the second moment", above(0)),
    "optimizer.weight_decay": Field(0.1, "decoupled decay, times the learning rate", at_least(0)),
    "optimizer.no_decay": Field(
        ("bias$", "scale$"), "parameters whose path matches one of these are not decayed", all_regex(), element=str
    ),
    "optimizer.clip": Field(1.0, "largest global norm of the gradient; 0: no clipping", at_least(0)),
    "schedule.name": Field(
        "cosine",
        "shape after warmup",
        one_of(
            constant="the peak",
            cosine="half a cosine from peak to final: Loshchilov & Hutter 2017",
            linear="a line from peak to final",
        ),
    ),
    "schedule.peak": Field(1e-3, "learning rate at the end of warmup", above(0)),
    "schedule.final": Field(0.0, "learning rate at the last step (cosine, linear)", at_least(0)),
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
    steps, warmup = flat["train.steps"], flat["schedule.warmup_steps"]
    if steps is not None and warmup is not None and warmup > steps:
        raise Refusal(f"schedule.warmup_steps is {warmup}: it must be at most train.steps ({steps}).")
    if flat["schedule.final"] > flat["schedule.peak"]:
        raise Refusal(
            f"schedule.final is {flat['schedule.final']}: it must be at most schedule.peak ({flat['schedule.peak']})."
        )
