"""A config in; the same config with every derived field filled, checked and frozen out. Pure: no JAX, no data."""

import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from lm.config import schema
from lm.families.catalog import FAMILIES
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
    _fill_model(flat)
    _check_model(flat)
    _fill_durations(flat)
    _check_run(flat)
    filled = schema.defaults()
    filled.update_from_flattened_dict(flat)
    return ml_collections.FrozenConfigDict(filled)


def _fill_model(flat: dict[str, Any]) -> None:
    switches = FAMILIES[flat["model.family"]].SWITCHES
    if (flat["model.positions"] or switches["positions"]) == "learned" and flat["model.rotary_base"] is not None:
        raise Refusal(
            f"model.rotary_base is {flat['model.rotary_base']}, but model.positions is 'learned': "
            "it is for model.positions='rotary'."
        )
    for name, value in switches.items():
        if flat[f"model.{name}"] is None:
            flat[f"model.{name}"] = value
    if flat["model.positions"] == "rotary" and flat["model.rotary_base"] is None:
        flat["model.rotary_base"] = 10000.0
    if flat["model.positions"] == "learned":
        flat["model.rotary_base"] = None
    width, heads = flat["model.width"], flat["model.heads"]
    if flat["model.head_width"] is None:
        if width % heads:
            raise Refusal(f"model.heads is {heads}: it must divide model.width ({width}), or set model.head_width.")
        flat["model.head_width"] = width // heads
    if flat["model.kv_heads"] is None:
        flat["model.kv_heads"] = heads
    if flat["model.feedforward_width"] is None:
        flat["model.feedforward_width"] = -(-8 * width // (3 * 64)) * 64 if flat["model.gated"] else 4 * width


def _check_model(flat: Mapping[str, Any]) -> None:
    heads, kv_heads, layers = flat["model.heads"], flat["model.kv_heads"], flat["model.layers"]
    if heads % kv_heads:
        raise Refusal(f"model.kv_heads is {kv_heads}: it must divide model.heads ({heads}).")
    if flat["model.positions"] == "rotary" and flat["model.head_width"] % 2:
        raise Refusal(f"model.head_width is {flat['model.head_width']}: rotary positions need an even number.")
    if flat["model.unroll"] and layers % flat["model.unroll"]:
        raise Refusal(f"model.unroll is {flat['model.unroll']}: it must divide model.layers ({layers}), or be 0.")


def _fill_durations(flat: dict[str, Any]) -> None:
    given = [name for name in ("train.steps", "train.tokens", "train.epochs") if flat[name] is not None]
    if len(given) != 1:
        have = " and ".join(given) or "none of them"
        raise Refusal(
            f"the run's length must be given by one of train.steps, train.tokens, train.epochs: {have} is set."
        )
    if given == ["train.tokens"]:
        tokens_per_step = flat["data.batch_size"] * flat["model.context"]
        flat["train.steps"] = math.ceil(flat["train.tokens"] / tokens_per_step)
        flat["train.tokens"] = None
    if flat["schedule.warmup_steps"] is not None and flat["schedule.warmup_fraction"] is not None:
        raise Refusal(
            "warmup must be given by one of schedule.warmup_steps and schedule.warmup_fraction: both are set."
        )
    if flat["schedule.warmup_fraction"] is None:
        flat["schedule.warmup_steps"] = flat["schedule.warmup_steps"] or 0
    elif flat["train.steps"] is not None:
        flat["schedule.warmup_steps"] = round(flat["schedule.warmup_fraction"] * flat["train.steps"])
        flat["schedule.warmup_fraction"] = None


def _check_run(flat: Mapping[str, Any]) -> None:
    steps, warmup = flat["train.steps"], flat["schedule.warmup_steps"]
    if steps is not None and warmup is not None and warmup > steps:
        raise Refusal(f"schedule.warmup_steps is {warmup}: it must be at most train.steps ({steps}).")
    profile = flat["train.profile_steps"]
    if profile and steps is not None and profile[1] > steps:
        raise Refusal(f"train.profile_steps is {profile}: its last step must be at most train.steps ({steps}).")
    if flat["schedule.final"] > flat["schedule.peak"]:
        raise Refusal(
            f"schedule.final is {flat['schedule.final']}: it must be at most schedule.peak ({flat['schedule.peak']})."
        )
    batch_size, accumulate = flat["data.batch_size"], flat["train.accumulate"]
    if batch_size % accumulate:
        raise Refusal(f"train.accumulate is {accumulate}: it must divide data.batch_size ({batch_size}).")
    if flat["parallel.mesh.data"] == -1 and flat["parallel.mesh.fsdp"] == -1:
        raise Refusal("parallel.mesh.data and parallel.mesh.fsdp are both -1: only one of them can take the rest.")


def bind(config: Mapping[str, Any], *, vocabulary: int, tokens: int) -> ml_collections.FrozenConfigDict:
    """Return the resolved config with what only the data can settle: vocabulary size, steps of an epoch.

    Args:
      config: a resolved config.
      vocabulary: ids of the tokenizer.
      tokens: tokens of the training split.
    """
    flat = flatten(config)
    if flat["model.vocabulary"] is None:
        flat["model.vocabulary"] = vocabulary
    if flat["model.vocabulary"] < vocabulary:
        raise Refusal(
            f"model.vocabulary is {flat['model.vocabulary']}: "
            f"the tokenizer {flat['data.tokenizer']!r} has {vocabulary} ids."
        )
    if flat["train.steps"] is None:
        tokens_per_step = flat["data.batch_size"] * flat["model.context"]
        flat["train.steps"] = max(1, round(flat["train.epochs"] * tokens / tokens_per_step))
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
