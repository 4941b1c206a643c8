"""What a field of a config is: default, meaning, range and mark; and the rules that ranges are made of."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from lm.refusal import Refusal

IDENTITY = "identity"  # changes the numbers: a resume must have it equal
HORIZON = "horizon"  # may grow when a finished run is continued
FREE = "free"  # may change at any time


class Rule(NamedTuple):
    """What a field may hold: in words, as a predicate on a value of the right type, and each choice's meaning."""

    words: str
    holds: Callable[[Any], bool]
    choices: Mapping[str, str] = {}


class Field(NamedTuple):
    """One field. `kind` is the type of its values; a default of None is a value still to be derived."""

    default: Any
    meaning: str
    rule: Rule
    mark: str = IDENTITY
    kind: type | None = None
    element: type | None = None  # of a tuple's elements

    @property
    def type(self) -> type:
        return self.kind or type(self.default)


def at_least(low: float) -> Rule:
    """Return the rule of a number from `low` on."""
    return Rule(f"at least {low}", lambda value: value >= low)


def above(low: float) -> Rule:
    """Return the rule of a number larger than `low`."""
    return Rule(f"above {low}", lambda value: value > low)


def within(low: float, high: float) -> Rule:
    """Return the rule of a number from `low` to `high`, both allowed."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def fraction() -> Rule:
    """Return the rule of a share that leaves something over."""
    return Rule("at least 0 and below 1", lambda value: 0 <= value < 1)


def one_of(**choices: str) -> Rule:
    """Return the rule of a choice: name=meaning of each; a catalog holds what the names stand for."""
    return Rule("one of " + ", ".join(choices), lambda value: value in choices, choices)


def any_of(**choices: str) -> Rule:
    """Return the rule of a tuple of choices, none of them twice."""
    is_some = lambda values: set(values) <= set(choices) and len(set(values)) == len(values)
    return Rule("any of " + ", ".join(choices) + "; none twice", is_some, choices)


def spelled(pattern: str, words: str = "", **choices: str) -> Rule:
    """Return the rule of a text that matches a pattern; `words` say so, or the choices (`name`, or `name:REST`)."""
    *others, last = choices or [""]
    words = words or (", ".join(others) + " or " if others else "") + last
    return Rule(words, lambda value: re.fullmatch(pattern, value, re.DOTALL) is not None, choices)


def all_regex() -> Rule:
    """Return the rule of a tuple of regular expressions."""

    def compiles(patterns: tuple[str, ...]) -> bool:
        try:
            return all(re.compile(pattern) for pattern in patterns)
        except re.error:
            return False

    return Rule("regular expressions", compiles)


def pairs(name: str, least: float = 0, most: float = math.inf) -> Rule:
    """Return the rule of a tuple of texts `NAME=NUMBER` from `least` to `most`; `name` says what a name is."""

    def holds(texts: tuple[str, ...]) -> bool:
        try:
            return all(label and math.isfinite(number) and least <= number <= most for label, number in split(texts))
        except ValueError:
            return False

    numbers = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
    return Rule(f"texts '{name}=NUMBER' with numbers {numbers}", holds)


def split(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Return (name, number) of each text `NAME=NUMBER`."""
    return [(label, float(number)) for label, _, number in (text.rpartition("=") for text in texts)]


SOME_TEXTS = Rule("texts that are not empty", all)
ANY_TEXT = Rule("any text", lambda value: True)
EITHER = Rule("True or False", lambda value: True)
A_NAME = spelled(".+", "a name")
A_FOLDER = spelled(".+", "a folder")


def check_readers(
    flat: Mapping[str, Any], fields: Mapping[str, Field], readers: Mapping[str, tuple[str, tuple[Any, ...]]]
) -> None:
    """Refuse a field that was set but is not read; `readers`: its name → the field that decides, its values that do."""
    for name, (choice, values) in readers.items():
        if flat[choice] not in values and flat[name] != fields[name].default:
            raise Refusal(
                f"{name} is {flat[name]!r}, but {choice} is {flat[choice]!r}: it is for {' and '.join(values)}."
            )
