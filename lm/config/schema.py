"""Every field of a config, of all sections together: name → Field. Nothing else is configuration."""

import math
from typing import Any

import ml_collections
from ml_collections import config_dict

from lm.config import data, model, objective, optimization, run, sample
from lm.config.field import Field

_LARGEST = 2**53  # of whole numbers: what a float still holds exactly

FIELDS: dict[str, Field] = (
    data.FIELDS | model.FIELDS | objective.FIELDS | optimization.FIELDS | run.FIELDS | sample.FIELDS
)


def defaults(section: str = "") -> ml_collections.ConfigDict:
    """Return a locked config of all default values, or only those of one section."""
    config = ml_collections.ConfigDict()
    for name, field in FIELDS.items():
        *sections, leaf = name.split(".")
        node = config
        for part in sections:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        node[leaf] = config_dict.placeholder(field.type) if field.default is None else field.default
    return (config[section] if section else config).lock()


def complaint(name: str, value: Any) -> str:
    """Return the sentence that refuses `value` for field `name`, or nothing when it is allowed."""
    field = FIELDS[name]
    if value is None and field.default is None:
        return ""
    kind = field.type
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        value = float(value)
    if type(value) is not kind:
        return f"{name} is {value!r}: it must be {field.rule.words}, of type {kind.__name__}."
    if kind is tuple and not all(type(item) is field.element for item in value):
        return f"{name} is {value!r}: its elements must be of type {field.element.__name__} ({field.rule.words})."
    if kind is int and abs(value) >= _LARGEST:
        return f"{name} is {value!r}: it must be {field.rule.words}, and below 2**53."
    if (kind is float and not math.isfinite(value)) or not field.rule.holds(value):
        return f"{name} is {value!r}: it must be {field.rule.words}."
    return ""
