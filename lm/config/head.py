"""The fields of the model section that say what hidden states become, what is derived from them, what is refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.field import EITHER, Field, at_least, one_of
from lm.refusal import Refusal

FIELDS = {
    "model.head": Field(
        None,
        "what the hidden states become",
        one_of(
            language="logits of ids",
            masked="logits of ids after one more layer and norm, with a bias: Devlin et al. 2019",
            classify="logits of labels: Devlin et al. 2019",
            none="nothing",
        ),
        kind=str,
    ),
    "model.labels": Field(None, "classes of the head classify", at_least(1), kind=int),
    "model.pooler": Field(
        None,
        "tanh of a layer of the hidden states, which the head classify reads; unset: with it, but in a decoder",
        EITHER,
        kind=bool,
    ),
    "model.scaled_head": Field(
        None, "hidden states are divided by √width before the head language: T5, with a tied head", EITHER, kind=bool
    ),
}


def fill(flat: dict[str, Any], family: Mapping[str, Any]) -> None:
    """Set what is unset: the family's switches, where they fit what is set."""
    for name in ("head", "tied", "architecture"):
        if flat[f"model.{name}"] is None:
            flat[f"model.{name}"] = family[name]
    kind = flat["model.head"]
    if flat["model.scaled_head"] is None:
        flat["model.scaled_head"] = family["scaled_head"] and flat["model.tied"] and kind == "language"
    if flat["model.pooler"] is None:
        flat["model.pooler"] = kind == "classify" and flat["model.architecture"] != "decoder"


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be built."""
    if (flat["model.labels"] is None) == (flat["model.head"] == "classify"):
        raise Refusal(
            f"model.labels is {flat['model.labels']}, but model.head is {flat['model.head']!r}: "
            "'classify' needs labels, and no other head has them."
        )
    if flat["model.scaled_head"] and flat["model.head"] != "language":
        raise Refusal(f"model.scaled_head is True, but model.head is {flat['model.head']!r}: it is for 'language'.")
