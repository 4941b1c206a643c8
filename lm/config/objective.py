"""The objective section: its fields, what it asks of the tokenizer and of the model, what is refused."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lm.config.data import LEARNED
from lm.config.field import EITHER, FREE, Field, Rule, at_least, check_readers, fraction, one_of, split, within
from lm.refusal import Refusal

ARCHITECTURES = {
    "causal": ("decoder",),
    "prefix": ("decoder",),
    "masked": ("encoder",),
    "span": ("encoder_decoder", "decoder"),
    "mixture": ("encoder_decoder", "decoder"),
    "seq2seq": ("encoder_decoder", "decoder"),
    "classify": ("encoder", "decoder"),
}
USUAL = {"decoder": "causal", "encoder": "masked", "encoder_decoder": "span"}  # of a model that says no objective
_WITH_PREFIX = ("prefix", "span", "mixture")  # of a decoder, which sees what they give at once
_SENTINELS = 100  # as many as T5's vocabulary has


def denoisers(texts: Iterable[str]) -> list[tuple[float, float, float]]:
    """Return (rate, mean length or 0 for one span at the end, weight) of each text RATE:LENGTH=WEIGHT."""
    found = []
    for text, weight in split(texts):
        rate, _, length = text.partition(":")
        found.append((float(rate), 0.0 if length == "end" else float(length), weight))
    return found


def _are_denoisers(texts: tuple[str, ...]) -> bool:
    try:
        found = denoisers(texts)
    except ValueError:
        return False
    is_one = lambda rate, length, weight: 0 < rate < 1 and (length == 0 or 1 <= length < math.inf) and weight >= 0
    return all(is_one(*one) for one in found) and 0 < sum(weight for *_, weight in found) < math.inf


FIELDS = {
    "objective.name": Field(
        "causal",
        "what is predicted",
        one_of(
            causal="the next token, from those before it in its record",
            prefix="the tokens behind a record's beginning, which is seen at once: Raffel et al. 2020",
            masked="tokens that are hidden, from all others of their record: Devlin et al. 2019",
            span="spans that are cut out, from the text around them: Raffel et al. 2020",
            mixture="the same, cut out in one of several ways: UL2, Tay et al. 2022",
            seq2seq="the target of a pair of texts, from its input",
            classify="which of objective.labels a pair's target is, from its input",
        ),
    ),
    "objective.chunk_tokens": Field(4096, "most tokens whose logits exist at once", at_least(1), FREE),
    "objective.label_smoothing": Field(
        0.0, "share of the target that goes to all ids alike, in training: Szegedy et al. 2016", fraction()
    ),
    "objective.z_loss": Field(
        0.0, "times log² of the softmax's denominator, added in training: Chowdhery et al. 2022 (1e-4)", at_least(0)
    ),
    "objective.balance_loss": Field(
        0.01,
        "times the experts' load-balance loss, added in training: Fedus et al. 2021 (no effect without experts)",
        at_least(0),
    ),
    "objective.router_z_loss": Field(
        0.001,
        "times log² of the router's denominator, added in training: Zoph et al. 2022 (no effect without experts)",
        at_least(0),
    ),
    "objective.mask_rate": Field(0.15, "share of a window's tokens that masked predicts", within(0.001, 0.999)),
    "objective.mask_random": Field(0.1, "share of these that a random token stands for", within(0, 1)),
    "objective.mask_kept": Field(0.1, "share of these that stay; all others become the mask token", within(0, 1)),
    "objective.noise_rate": Field(0.15, "share of a text's tokens that span cuts out", within(0.001, 0.9)),
    "objective.noise_length": Field(3.0, "mean length of the spans that span cuts out, in tokens", at_least(1)),
    "objective.denoisers": Field(
        ("0.15:3=1", "0.15:8=1", "0.25:end=1", "0.5:3=1", "0.5:8=1", "0.15:64=1", "0.5:64=1"),
        "what mixture draws from: rate, mean length of the spans or `end` for a single one there, and weight; as UL2's "
        "table 1",
        Rule(
            "texts 'RATE:LENGTH=WEIGHT' with rates between 0 and 1, lengths of at least 1, a weight above 0",
            _are_denoisers,
        ),
        element=str,
    ),
    "objective.labels": Field(
        (),
        "texts that name the classes of classify",
        Rule("texts, none empty, none twice", lambda texts: all(texts) and len(set(texts)) == len(texts)),
        element=str,
    ),
    "objective.prefix": Field(False, "seq2seq with a decoder: all of the input is seen from everywhere in it", EITHER),
}


# Fields that one objective reads.
_READERS = {
    **{f"objective.{name}": ("objective.name", ("masked",)) for name in ("mask_rate", "mask_random", "mask_kept")},
    **{f"objective.{name}": ("objective.name", ("span",)) for name in ("noise_rate", "noise_length")},
    "objective.denoisers": ("objective.name", ("mixture",)),
}


def has_prefix(config: Any) -> bool:
    """Say whether a config's model is a decoder that learns to see all of what it is given at once."""
    section = config.objective
    return config.model.architecture == "decoder" and (section.name in _WITH_PREFIX or section.prefix)


def fill(flat: dict[str, Any]) -> None:
    """Ask a tokenizer that is learned for the tokens that the objective needs, and the model for its head."""
    is_learned = flat["data.tokenizer"].partition(":")[0] in LEARNED
    needed = flat["objective.name"] if is_learned else None
    if flat["data.mask_token"] is None:
        flat["data.mask_token"] = "[MASK]" if needed == "masked" else ""
    if flat["data.sentinels"] is None:
        flat["data.sentinels"] = _SENTINELS if needed in ("span", "mixture") else 0
    if flat["objective.name"] == "classify" and flat["objective.labels"]:
        if flat["model.head"] is None:
            flat["model.head"] = "classify"
        if flat["model.labels"] is None:
            flat["model.labels"] = len(flat["objective.labels"])


def check_head(name: str, head: str) -> None:
    """Refuse a model.head that the objective of that name learns nothing with.

    Of a model that is published with such a head no objective is meant: hence not in `check`.
    """
    if (name == "classify") != (head == "classify") or head == "none":
        raise Refusal(
            f"model.head is {head!r}, but objective.name is {name!r}: 'classify' goes with 'classify', all others with "
            "'language' or 'masked'; leave it unset."
        )


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot run."""
    name, architecture = flat["objective.name"], flat["model.architecture"]
    if architecture not in (allowed := ARCHITECTURES[name]):
        raise Refusal(
            f"objective.name is {name!r}, but model.architecture is {architecture!r}: it needs {' or '.join(allowed)}."
        )
    labels, head = len(flat["objective.labels"]), flat["model.head"]
    if name == "classify" and not labels:
        raise Refusal(f"objective.labels is (): objective.name {name!r} needs the texts that name the classes.")
    if name == "classify":
        check_head(name, head)
    if labels and labels != flat["model.labels"]:
        raise Refusal(
            f"objective.labels has {labels} texts, but model.labels is {flat['model.labels']}: leave that unset."
        )
    if flat["objective.prefix"] and (name != "seq2seq" or architecture != "decoder"):
        raise Refusal(
            f"objective.prefix is True, but objective.name is {name!r} and model.architecture {architecture!r}: "
            "it is for seq2seq with a decoder."
        )
    sees_prefix = architecture == "decoder" and (name in _WITH_PREFIX or flat["objective.prefix"])
    if flat["model.positions"] == "relative" and sees_prefix:
        raise Refusal(
            f"model.positions is 'relative', but objective.name is {name!r} and model.architecture 'decoder': its "
            "buckets do not tell apart the tokens of a prefix that stand behind; set 'rotary', or an encoder_decoder."
        )
    if (shares := flat["objective.mask_random"] + flat["objective.mask_kept"]) > 1:
        raise Refusal(
            f"objective.mask_random and objective.mask_kept are {shares} together: their sum must be at most 1."
        )
    check_readers(flat, FIELDS, _READERS)
