"""A config in; the same config with every derived field filled, checked and frozen out. Pure: no JAX, no data."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from lm.config import data, model, objective, optimization, run, sample, schema
from lm.refusal import Refusal, nearest


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted field names → values."""
    flat = {}
    for key in config:
        value = config[key]
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | ml_collections.ConfigDict | ml_collections.FrozenConfigDict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def check_names(names: Mapping[str, Any] | list[str], known: Mapping[str, Any] = schema.FIELDS) -> None:
    """Refuse a name that the schema does not have, with the nearest one that it has."""
    for name in names:
        if name not in known:
            raise Refusal(f"there is no config field {name!r}{nearest(name, known)}.")


def check_fields(flat: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse the first unknown name, wrong type or value out of range of fields named from `prefix` on."""
    full = {prefix + name: value for name, value in flat.items()}
    check_names(full)
    for name, value in full.items():
        if words := schema.complaint(name, value):
            raise Refusal(words)


def resolve(config: Mapping[str, Any]) -> ml_collections.FrozenConfigDict:
    """Return the config with families' switches and derived sizes filled in, checked and frozen.

    Resolving a resolved config changes nothing.

    Raises:
      Refusal: an unknown or missing field, a wrong type, a value or a combination that is not allowed.
    """
    flat = flatten(config)
    check_fields(flat)
    for name in schema.FIELDS:
        if name not in flat:
            raise Refusal(f"the config lacks the field {name!r}; start from lm.config.defaults().")
    flat = {n: float(v) if schema.FIELDS[n].type is float and v is not None else v for n, v in flat.items()}
    for section in (data, objective, model, run, optimization):
        section.fill(flat)
    for section in (data, objective, model, run, optimization, sample):
        section.check(flat)
    filled = schema.defaults()
    filled.update_from_flattened_dict(flat)
    return ml_collections.FrozenConfigDict(filled)


def bind(
    config: Mapping[str, Any], *, vocabulary: int | None = None, tokens: int | None = None
) -> ml_collections.FrozenConfigDict:
    """Return the resolved config with what only the data can settle: vocabulary size, steps of an epoch.

    Args:
      config: a resolved config.
      vocabulary: ids of the tokenizer, once known.
      tokens: tokens of an epoch, once known.
    """
    flat = flatten(config)
    if flat["model.vocabulary"] is None:
        flat["model.vocabulary"] = vocabulary
    if vocabulary is not None and flat["model.vocabulary"] < vocabulary:
        raise Refusal(
            f"model.vocabulary is {flat['model.vocabulary']}: "
            f"the tokenizer {flat['data.tokenizer']!r} has {vocabulary} ids."
        )
    if flat["train.steps"] is None and tokens is not None:
        flat["train.steps"] = max(
            1, round(run.growth(flat).steps(flat["train.epochs"] * tokens / flat["model.context"]))
        )
        flat["train.epochs"] = None
    bound = schema.defaults()
    bound.update_from_flattened_dict(flat)
    return resolve(bound)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], mark: str) -> list[str]:
    """Return `field: old → new` for every field of that mark whose values differ; None, not yet bound, never does."""
    old, new = flatten(old), flatten(new)
    return [
        f"{name}: {old[name]!r} → {new[name]!r}"
        for name, field in schema.FIELDS.items()
        if field.mark == mark and None not in (old[name], new[name]) and old[name] != new[name]
    ]
