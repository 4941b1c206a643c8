"""The objective section: its fields, what it asks of the tokenizer and of the model, what is refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.data import LEARNED
from lm.config.field import FREE, Field, at_least, fraction, one_of, within
from lm.refusal import Refusal

_ARCHITECTURES = {"causal": ("decoder",), "masked": ("encoder",)}

FIELDS = {
    "objective.name": Field(
        "causal",
        "what is predicted",
        one_of(
            causal="the next token, from those before it in its record",
            masked="tokens that are hidden, from all others of their record: Devlin et al. 2019",
        ),
    ),
    "objective.chunk_tokens": Field(4096, "most tokens whose logits exist at once", at_least(1), FREE),
    "objective.label_smoothing": Field(
        0.0, "share of the target that goes to all ids alike, in training: Szegedy et al. 2016", fraction()
    ),
    "objective.z_loss": Field(
        0.0, "times log² of the softmax's denominator, added in training: Chowdhery et al. 2022 (1e-4)", at_least(0)
    ),
    "objective.mask_rate": Field(0.15, "share of a window's tokens that masked predicts", within(0.001, 0.999)),
    "objective.mask_random": Field(0.1, "share of these that a random token stands for", within(0, 1)),
    "objective.mask_kept": Field(0.1, "share of these that stay; all others become the mask token", within(0, 1)),
}


def fill(flat: dict[str, Any]) -> None:
    """Ask a tokenizer that is learned for the tokens that the objective needs; that of a file has them or not."""
    is_learned = flat["data.tokenizer"].partition(":")[0] in LEARNED
    needed = flat["objective.name"] if is_learned else None
    if flat["data.mask_token"] is None:
        flat["data.mask_token"] = "[MASK]" if needed == "masked" else ""
    if flat["data.sentinels"] is None:
        flat["data.sentinels"] = 0


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot run."""
    name, architecture = flat["objective.name"], flat["model.architecture"]
    if architecture not in (allowed := _ARCHITECTURES[name]):
        raise Refusal(
            f"objective.name is {name!r}, but model.architecture is {architecture!r}: it needs {' or '.join(allowed)}."
        )
    if (shares := flat["objective.mask_random"] + flat["objective.mask_kept"]) > 1:
        raise Refusal(
            f"objective.mask_random and objective.mask_kept are {shares} together: their sum must be at most 1."
        )
