"""Config files and flags: their arguments, exact JSON, and the names of overrides."""

import ast
import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from lm.config import schema
from lm.config.resolve import check_fields, check_names, flatten
from lm.refusal import Refusal, nearest

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def parse_arg(arg: str | None, **declared: Any) -> ml_collections.ConfigDict:
    """Return what the text after `FILE.py:` says for the declared names, `value,name=value,…`.

    Values without a name go to the declared names in order; each takes the type of its default. A default
    that is a tuple lists the allowed values, the first being the default.

    Example: `parse_arg("355m", size=("124m", "355m")).size == "355m"`.
    """
    values = {name: default[0] if isinstance(default, tuple) else default for name, default in declared.items()}
    for place, part in enumerate(filter(None, (arg or "").split(","))):
        name, equals, text = part.partition("=")
        if not equals:
            if place >= len(declared):
                raise Refusal(f"the config's argument {arg!r} has too many values: it takes {', '.join(declared)}.")
            name, text = list(declared)[place], part
        if name not in declared:
            raise Refusal(f"the config's argument {arg!r} names {name!r}: it takes {', '.join(declared)}.")
        allowed = declared[name] if isinstance(declared[name], tuple) else None
        kind = type(values[name])
        try:
            values[name] = _TRUTHS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise Refusal(f"the config's argument {name!r} is {text!r}: it must be of type {kind.__name__}.") from None
        if allowed and values[name] not in allowed:
            options = ", ".join(map(str, allowed))
            raise Refusal(f"the config's argument {name!r} is {text!r}: it must be one of {options}.")
    return ml_collections.ConfigDict(values)


def to_json(config: Mapping[str, Any]) -> str:
    """Return the config as JSON, every field by its dotted name; `from_json` gives it back exactly."""
    return json.dumps(flatten(config), indent=1)


def from_json(text: str) -> ml_collections.ConfigDict:
    """Return the config that `to_json` wrote; a field that has come since takes its default.

    Raises:
      Refusal: a field that the schema does not have, or a value that it does not allow.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise Refusal(f"the config is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise Refusal(f"the config is {values!r}: it must be a JSON object of fields.")
    check_names(values)
    tuples = {
        name: tuple(value)
        for name, value in values.items()
        if schema.FIELDS[name].type is tuple and isinstance(value, list)
    }
    check_fields(values | tuples)
    config = schema.defaults()
    config.update_from_flattened_dict(values | tuples)
    return config


def check_flag_names(arguments: list[str]) -> None:
    """Refuse `--config.…`, `--sample.…` and `--data.…` that no field answers to, and a `--config` that is no file."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            path = (value if equals else "".join(arguments[place + 1 : place + 2])).partition(":")[0]
            if not os.path.isfile(path):
                raise Refusal(f"the config file {path!r} does not exist.")
        if argument.startswith("--no") and name.startswith(("noconfig.", "nosample.", "nodata.")):
            name = name[2:]
        if argument.startswith("--") and name.startswith(("config.", "sample.", "data.")):
            field = name.removeprefix("config.")
            if field not in schema.FIELDS:
                raise Refusal(f"there is no config field {field!r}{nearest(field, schema.FIELDS)}.")


def as_tuples(arguments: list[str]) -> list[str]:
    """Return the arguments with a lone text for a field of texts as a tuple of it: `--sample.stop=User:`.

    What is written as a tuple, a list or a quoted text stays so; else the flags' parser would read 12 as a number, and
    refuse a text that has a comma or a space.
    """
    return [_as_tuple(argument) for argument in arguments]


def _as_tuple(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    field = schema.FIELDS.get(flag.lstrip("-").removeprefix("config."))
    if not (argument.startswith("--") and equals and field and field.element is str):
        return argument
    try:
        is_written = isinstance(ast.literal_eval(value), tuple | list | str)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        is_written = False
    return argument if is_written else f"{flag}={(value,)!r}"
