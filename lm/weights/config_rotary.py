"""Rotary positions as a config.json says them in, our fields of them out; and back.

Today's form is {"rope_parameters": {"rope_type": …, "rope_theta": …, …}}, with one such object for each kind of layer
where windowed layers have a base of their own; what came before it is "rope_theta" beside "rope_scaling".
"""

from collections.abc import Mapping
from typing import Any

from lm.families.base import Rotary
from lm.refusal import Refusal
from lm.weights.published import spelled

_FULL, _SLIDING = "full_attention", "sliding_attention"
_SHARE, _LOCAL, _CONTEXT = "partial_rotary_factor", "rope_local_base_freq", "original_max_position_embeddings"
_ATTENTION = "attention_factor"

# Their rope_type → our rotary_scaling, and its numbers: their name → our field.
_SCALINGS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("none", {}),
    "linear": ("linear", {"factor": "rotary_factor"}),
    "llama3": (
        "llama3",
        {
            "factor": "rotary_factor",
            "low_freq_factor": "rotary_low",
            "high_freq_factor": "rotary_high",
            _CONTEXT: "rotary_original_context",
        },
    ),
    "yarn": (
        "yarn",
        {
            "factor": "rotary_factor",
            "beta_slow": "rotary_slow",
            "beta_fast": "rotary_fast",
            _ATTENTION: "rotary_attention",
            _CONTEXT: "rotary_original_context",
        },
    ),
}
_ABSENT = {"beta_slow": 1.0, "beta_fast": 32.0, _ATTENTION: 0.0}  # what a number is where they have none; 0: derived


def names(row: Rotary) -> list[str]:
    """Return the attributes that a row reads."""
    own = [_SHARE, *row.shares] if row.share is not None else []
    own += [_LOCAL] if row.window_base is not None else []
    return ["rope_parameters", "rope_theta", "rope_scaling", *row.older, *own]


def read(row: Rotary, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our fields of rotary positions.

    Raises:
      Refusal: a type that there is not, or a number that is missing, none or not read.
    """
    given, scaling = _object(theirs, "rope_parameters"), _object(theirs, "rope_scaling")
    found = {}
    if row.window_base is not None:
        sliding = _object(given, _SLIDING)
        base = _first([sliding.pop("rope_theta", None), theirs.get(_LOCAL), row.window_base])
        if _type(sliding) != "default" or sliding:
            raise Refusal(f"config.json: rope_parameters of {_SLIDING} has {spelled(sliding)}: that is not read.")
        found["rotary_window_base"] = _number("rope_theta", base)
        given = _object(given, _FULL) | scaling if given.keys() <= {_FULL, _SLIDING} else given
    else:
        given = scaling or given
    plain = [theirs.get(name) for name in (*row.older, "rope_theta")]
    found["rotary_base"] = _number("rope_theta", _first([given.pop("rope_theta", None), *plain, row.base]))
    if row.share is not None:
        plain = [theirs.get(name) for name in (*row.shares, _SHARE)]
        found["rotary_share"] = _number(_SHARE, _first([given.pop(_SHARE, None), *plain, row.share]))
    kind = _type(given)
    if kind not in list(_SCALINGS):  # it may be anything
        raise Refusal(
            f"config.json: rope_parameters is {spelled(given | {'rope_type': kind})}: "
            f"types that are read are {', '.join(_SCALINGS)}."
        )
    found["rotary_scaling"], numbers = _SCALINGS[kind]
    if _CONTEXT in numbers:
        given.setdefault(_CONTEXT, fields["context"])
    if given.get(_ATTENTION) == 0:
        raise Refusal(f"config.json: {_ATTENTION} is {spelled(given[_ATTENTION])}: it must be above 0.")
    given |= {name: given.get(name) or value for name, value in _ABSENT.items() if name in numbers}
    if kind == "yarn" and given.get("truncate") is True:  # as without it
        del given["truncate"]
    if odd := sorted(given.keys() ^ numbers.keys()):
        words = f"it has or lacks {', '.join(map(spelled, odd[:3]))}"
        raise Refusal(f"config.json: rope_parameters is {spelled(given | {'rope_type': kind})}: {words}.")
    return found | {field: _number(name, given[name]) for name, field in numbers.items()}


def write(row: Rotary, section: Any) -> dict[str, Any]:
    """Return both forms, so that older versions open it too."""
    if section.positions != "rotary":
        raise Refusal(
            f"model.positions is {section.positions!r}: the published layout of {section.family} holds only 'rotary'."
        )
    kinds = [kind for kind, (ours, _) in _SCALINGS.items() if ours == section.rotary_scaling]
    if not kinds:
        words = ", ".join(ours for ours, _ in _SCALINGS.values())
        raise Refusal(f"model.rotary_scaling is {section.rotary_scaling!r}: published layouts hold only {words}.")
    (kind,) = kinds
    numbers = {name: section[field] for name, field in _SCALINGS[kind][1].items()}
    scaling = {"rope_type": kind} | {name: value for name, value in numbers.items() if value != _ABSENT.get(name)}
    full = scaling | {"rope_theta": section.rotary_base}
    theirs: dict[str, Any] = {[*row.older, "rope_theta"][0]: section.rotary_base}
    if row.share is not None:
        full[_SHARE] = section.rotary_share
        theirs[[*row.shares, _SHARE][0]] = section.rotary_share
    if row.window_base is not None:
        theirs[_LOCAL] = section.rotary_window_base
        sliding = {"rope_type": "default", "rope_theta": section.rotary_window_base}
        theirs["rope_parameters"] = {_FULL: full, _SLIDING: sliding}
    else:
        theirs["rope_parameters"] = full
    return theirs | ({} if kind == "default" else {"rope_scaling": scaling})


def _object(theirs: Mapping[str, Any], name: str) -> dict[str, Any]:
    inner = theirs.get(name) or {}
    if not isinstance(inner, dict):
        raise Refusal(f"config.json: {name} is {spelled(inner)}: it must be an object.")
    return dict(inner)


def _type(given: dict[str, Any]) -> Any:
    """Return the type, by both its names, and take it out."""
    older = given.pop("type", None)
    return given.pop("rope_type", None) or older or "default"


def _first(values: list[Any]) -> Any:
    return next(value for value in values if value is not None)


def _number(name: str, value: Any) -> int | float:
    if type(value) not in (int, float) or not abs(value) < 1e30:
        raise Refusal(f"config.json: {name} is {spelled(value)}: it must be a number.")
    return value if name == _CONTEXT else float(value)
