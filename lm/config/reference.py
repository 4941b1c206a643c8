"""The schema in; its page in Markdown, and the lines that every command's help has of its fields, out."""

import re
from collections.abc import Iterable

from lm.config.field import FREE, HORIZON, IDENTITY, Field
from lm.config.schema import FIELDS

_TITLE = """# Every field of a config

Written by `python -m lm.config > docs/config.md`; a test holds it equal to the schema in `lm/config/`.

A field is set in a config file (`config.model.width = 192`) or on the command line (`--config.model.width=192`). What
is *unset* is derived when the config is resolved, or left out; `config.json` in the workdir holds what came of it.
"""

_MARKS = {
    IDENTITY: "changes the numbers: a run is continued only with the value that it began with",
    HORIZON: "how long the run is: it may grow when a run is continued",
    FREE: "changes nothing that is learned: it may change whenever a run is continued",
}


def page() -> str:
    """Return every field by section: default, type, range, mark, meaning, and each choice on its own line."""
    lines = [_TITLE, *(f"- **{mark}**: {words}" for mark, words in _MARKS.items())]
    section = None
    for name, field in FIELDS.items():
        if name.split(".")[0] != section:
            section = name.split(".")[0]
            lines += ["", f"## {section}", ""]
        lines.append(f"- **`{name}`** = `{_default(field)}`: {_escaped(field.meaning)}")
        lines.append(f"  ({_type(field)}; {_escaped(field.rule.words)}; {field.mark})")
        lines += [f"  - `{choice}`: {_escaped(meaning)}" for choice, meaning in field.rule.choices.items()]
    return "\n".join(lines)


def help_lines(names: Iterable[str], prefix: str) -> list[str]:
    """Return what a command's help says of the fields of those names."""
    lines = []
    for name in names:
        field = FIELDS[name]
        lines.append(f"  --{prefix}{name}={_default(field)}")
        lines.append(f"      {field.meaning} ({_type(field)}; {field.rule.words})")
        lines += [f"        {choice}: {meaning}" for choice, meaning in field.rule.choices.items()]
    return lines


def _escaped(words: str) -> str:
    return re.sub(r"([*<\[`])", r"\\\1", words)


def _default(field: Field) -> str:
    return "unset" if field.default is None else repr(field.default)


def _type(field: Field) -> str:
    return f"tuple of {field.element.__name__}" if field.element else field.type.__name__
