"""A published config.json in, our config out; and back. Families' rows say what its attributes mean (families/base.py).

Whatever no row names is refused: a model that is read must be the model that was published, or none.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from lm.config import schema
from lm.config.field import IDENTITY
from lm.config.objective import USUAL
from lm.config.resolve import resolve
from lm.families import base
from lm.families.base import Attribute, Labels, Layout, Only, Rotary, Silent, Windows, Words
from lm.families.catalog import FAMILIES, switches
from lm.refusal import Refusal, nearest
from lm.weights import config_rotary
from lm.weights.published import spelled

_DERIVED = ("kv_heads", "head_width", "feedforward_width")  # null in theirs leaves them to be derived in both
_LAYERS = 10_000  # at most, whatever a file says
_ATTRIBUTES = 1000  # at most
_NAME = 100  # characters of one's name, or of a word or number
_SLIDING, _FULL = "sliding_attention", "full_attention"

# Fields of ours that change no logits of given weights, or that their config does not have for every family.
_OURS = (
    r"^(context|vocabulary_multiple|init|init_std|zero_init|dropout|token_dropout|stochastic_depth|(\w+_)?dtype|"
    r"dispatch|expert_capacity)$"
)


def layout(family: str) -> Layout:
    """Return how a family is published."""
    return FAMILIES[family].LAYOUT


def from_theirs(theirs: Mapping[str, Any], *, parameter_dtype: str = "float32") -> ml_collections.FrozenConfigDict:
    """Return a resolved config whose model section is the published model's; all else is the schema's defaults.

    Raises:
      Refusal: a family that there is not, an attribute that is not honoured, or a value of one.
    """
    _check_names(theirs)
    family = _family(theirs)
    fields = {"family": family, "parameter_dtype": parameter_dtype, "vocabulary_multiple": 1}
    fields |= _architecture(theirs, layout(family))
    known: list[str] = []
    for row in (*layout(family).attributes, *base.COMMON, base.SILENT):
        names = _NAMES[type(row)](row)
        fields |= _READ[type(row)](row, theirs, fields) if not set(names) & set(known) else {}
        known += names
    for name in theirs:
        if not any(re.fullmatch(pattern, name) for pattern in known):
            raise Refusal(
                f"config.json: {name} is {spelled(theirs[name])}: models of {family} with that are not read"
                f"{nearest(name, known)}."
            )
    return _resolved(fields)


def to_theirs(section: Any) -> dict[str, Any]:
    """Return the config.json of a resolved model section, without the ids of special tokens.

    Raises:
      Refusal: the family is published in no form that says what the section says.
    """
    family = layout(section.family)
    names = [name for name, says in family.architectures.items() if all(section[f] == v for f, v in says.items())]
    if not names:
        said = {field: section[field] for says in family.architectures.values() for field in says}
        raise Refusal(f"the published layout of {section.family} holds no model with {said}.")
    theirs = {"architectures": names[:1], "model_type": family.model_types[0], "dtype": section.parameter_dtype}
    for row in family.attributes:
        theirs |= _WRITE[type(row)](row, section)
    again = from_theirs(theirs, parameter_dtype=section.parameter_dtype).model
    for name, value in section.items():
        is_meant = schema.FIELDS[f"model.{name}"].mark == IDENTITY and not re.search(_OURS, name)
        if is_meant and again[name] != value:
            raise Refusal(
                f"model.{name} is {value!r}: the published layout of {section.family} would hold {again[name]!r}."
            )
    return theirs


def _check_names(theirs: Mapping[str, Any]) -> None:
    """Refuse more attributes, or longer names of them, than any model has."""
    if len(theirs) > _ATTRIBUTES:
        raise Refusal(f"config.json has {len(theirs):,} attributes: more than {_ATTRIBUTES:,} are not read.")
    for name in theirs:
        if len(name) > _NAME or not name.isprintable():
            raise Refusal(f"config.json has an attribute {spelled(name)}: that is no name of one.")


def _family(theirs: Mapping[str, Any]) -> str:
    families = {kind: name for name, family in FAMILIES.items() for kind in family.LAYOUT.model_types}
    kind = theirs.get("model_type")
    if not isinstance(kind, str) or kind not in families:
        raise Refusal(f"config.json: model_type is {spelled(kind)}: it must be one of {', '.join(sorted(families))}.")
    return families[kind]


def _architecture(theirs: Mapping[str, Any], family: Layout) -> Mapping[str, Any]:
    """Return the fields that the architecture's name stands for."""
    names = theirs.get("architectures") or list(family.architectures)
    name = names[0] if isinstance(names, list) else names
    if not isinstance(names, list) or not isinstance(name, str) or name not in family.architectures:
        raise Refusal(
            f"config.json: architectures is {spelled(name)}: of {family.model_types[0]} those read are "
            f"{', '.join(family.architectures)}."
        )
    return family.architectures[name]


def _resolved(fields: Mapping[str, Any]) -> ml_collections.FrozenConfigDict:
    """Return the config of these model fields."""
    flat = {f"model.{name}": value for name, value in fields.items() if value is not None}
    for name, value in flat.items():
        if isinstance(value, list | dict) or (isinstance(value, str | int) and len(str(value)) > _NAME):
            raise Refusal(f"config.json: {name} is {spelled(value)}: it must be a number or a word.")
        if words := schema.complaint(name, value):
            raise Refusal(f"config.json: {words}")
    config = schema.defaults()
    architecture = (switches(fields["family"]) | fields)["architecture"]
    config.update_from_flattened_dict({**flat, "objective.name": USUAL[architecture], "train.steps": 1})
    return resolve(config)


def _read_attribute(row: Attribute, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    value = next((theirs[name] for name in (row.name, *row.older) if name in theirs), row.absent)
    if value is None and row.like:
        return {row.field: fields[row.like]}
    if value is None and row.null is not None:
        return {row.field: row.null}
    if value is None:
        if row.field not in _DERIVED:
            raise Refusal(f"config.json: {row.name} is null: it must be a value.")
        return {row.field: None}
    if row.values:
        if not isinstance(value, str | bool | int) or value not in row.values:
            allowed = ", ".join(map(str, row.values))
            raise Refusal(f"config.json: {row.name} is {spelled(value)}: those read are {allowed}.")
        value = row.values[value]
    if row.field in ("layers", "encoder_layers") and not (type(value) is int and 0 < value <= _LAYERS):
        raise Refusal(f"config.json: {row.name} is {spelled(value)}: it must be from 1 to {_LAYERS}.")
    if row.plus and type(value) is int:
        value -= row.plus
    if row.power != 1 and type(value) in (int, float):
        if not 0 < value < 1e30:
            raise Refusal(f"config.json: {row.name} is {spelled(value)}: it must be above 0, and no larger than 1e30.")
        value = value**row.power
    return {row.field: value}


def _write_attribute(row: Attribute, section: Any) -> dict[str, Any]:
    value = section[row.field]
    if row.null is not None and value == row.null:
        return {row.name: None}
    if row.power != 1:
        value = value ** (1 / row.power)
        value = round(value) if math.isclose(value, round(value), rel_tol=1e-9) else value
    if row.values:
        words = [word for word, ours in row.values.items() if ours == value]
        if not words:
            raise Refusal(
                f"model.{row.field} is {value!r}: the published layout of {section.family} has only "
                f"{', '.join(map(repr, sorted(set(row.values.values()), key=str)))}."
            )
        value = words[0]
    return {row.name: value + row.plus if row.plus else value}


def _read_words(row: Words, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    word = theirs.get(row.name, row.absent)
    if not isinstance(word, str) or word not in row.values:
        raise Refusal(f"config.json: {row.name} is {spelled(word)}: those read are {', '.join(row.values)}.")
    return dict(row.values[word])


def _write_words(row: Words, section: Any) -> dict[str, Any]:
    words = [word for word, says in row.values.items() if all(section[field] == value for field, value in says.items())]
    if not words:
        said = {field: section[field] for says in row.values.values() for field in says}
        raise Refusal(f"the published layout of {section.family} has no {row.name} for a model with {said}.")
    return {row.name: words[0]}


def _read_labels(row: Labels, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    if fields.get("head") != "classify":
        return {}
    names = theirs.get("id2label")
    return {"labels": len(names) if isinstance(names, dict) else theirs.get("num_labels", 2)}


def _write_labels(row: Labels, section: Any) -> dict[str, Any]:
    return {"num_labels": section.labels} if section.head == "classify" else {}


def _read_only(row: Only, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    absent = row.value if row.absent is base.SAME else row.absent
    value = theirs.get(row.name, absent)
    if value != row.value and not (value is None and row.or_null):
        raise Refusal(f"config.json: {row.name} is {spelled(value)}: only models with {row.value!r} are read.")
    return {}


def _write_only(row: Only, section: Any) -> dict[str, Any]:
    return {} if row.absent is base.SAME else {row.name: row.value}


def _read_windows(row: Windows, theirs: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    layers = fields["layers"]
    width = _count("sliding_window", theirs.get("sliding_window", row.absent), or_null=True) or 0
    kinds = theirs.get("layer_types") if row.types else None
    which, _, number = row.layers.partition(":")
    if which == "above":
        first = _count("max_window_layers", theirs.get("max_window_layers", int(number)))
        width = width if theirs.get("use_sliding_window", False) else 0
        derived = [_SLIDING if layer >= first else _FULL for layer in range(layers)]
    elif which == "not":
        every = theirs.get("sliding_window_pattern", int(number)) if row.pattern else int(number)
        every = _count("sliding_window_pattern", every) or 1
        derived = [_SLIDING if (layer + 1) % every else _FULL for layer in range(layers)]
    else:
        derived = [_SLIDING] * layers
    kinds = derived if kinds is None else kinds
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (_SLIDING, _FULL) for kind in kinds):
        raise Refusal(
            f"config.json: layer_types is {spelled(kinds)}: it must have {_FULL} or {_SLIDING} for each of {layers} "
            "layers."
        )
    return {"windows": _shortest([width if kind == _SLIDING else 0 for kind in kinds])}


def _count(name: str, value: Any, or_null: bool = False) -> Any:
    """Return a whole number, as an attribute gives it."""
    if not (value is None and or_null) and (type(value) is not int or not 0 <= value < 1 << 53):
        raise Refusal(f"config.json: {name} is {spelled(value)}: it must be a whole number from 0 to 2**53.")
    return value


def _shortest(windows: list[int]) -> tuple[int, ...]:
    """Return the shortest tuple that, repeated, is these; () where all are 0."""
    if not any(windows):
        return ()
    count = len(windows)
    repeats = lambda size: all(windows[i] == windows[i % size] for i in range(count))
    return tuple(windows[: next(size for size in range(1, count + 1) if repeats(size))])


def _write_windows(row: Windows, section: Any) -> dict[str, Any]:
    pattern = tuple(section.windows) or (0,)
    windows = [pattern[layer % len(pattern)] for layer in range(section.layers)]
    widths = sorted(set(windows) - {0})
    if len(widths) > 1 or (not row.types and row.layers == "all" and widths and 0 in windows):
        raise Refusal(
            f"model.windows is {section.windows}: the published layout of {section.family} holds one width"
            f"{'' if row.types else ', in every layer'}."
        )
    theirs: dict[str, Any] = {"sliding_window": widths[0] if widths else None}
    if row.layers.startswith("above:"):
        theirs["use_sliding_window"] = bool(widths)
    if row.types:
        theirs["layer_types"] = [_SLIDING if window else _FULL for window in windows]
    return theirs


_NAMES = {
    Attribute: lambda row: [row.name, *row.older],
    Words: lambda row: [row.name],
    Labels: lambda row: ["id2label", "num_labels"],
    Only: lambda row: [row.name],
    Silent: lambda row: [row.names],
    Rotary: config_rotary.names,
    Windows: lambda row: (
        ["sliding_window"]
        + ["layer_types"] * row.types
        + ["sliding_window_pattern"] * row.pattern
        + ["use_sliding_window", "max_window_layers"] * row.layers.startswith("above:")
    ),
}
_READ = {
    Attribute: _read_attribute,
    Words: _read_words,
    Labels: _read_labels,
    Only: _read_only,
    Silent: lambda row, theirs, fields: {},
    Rotary: config_rotary.read,
    Windows: _read_windows,
}
_WRITE = {
    Attribute: _write_attribute,
    Words: _write_words,
    Labels: _write_labels,
    Only: _write_only,
    Silent: lambda row, section: {},
    Rotary: config_rotary.write,
    Windows: _write_windows,
}
