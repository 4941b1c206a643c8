"""The page of all fields is what the schema says, whole, and docs/config.md is that page."""

from pathlib import Path

import pytest

from lm.config import reference
from lm.config.field import FREE, HORIZON, IDENTITY
from lm.config.schema import FIELDS

ROOT = Path(__file__).parents[2]


def test_the_page_in_docs_is_the_schema_of_today():
    shown = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert shown == reference.page() + "\n", "the schema has changed: python -m lm.config > docs/config.md"


def entries():
    """Return name → the page's lines of that field."""
    found, name = {}, None
    for line in reference.page().split("\n"):
        if line.startswith("- **`"):
            name = line.split("`")[1]
            found[name] = []
        elif line.startswith("#"):
            name = None
        if name and line:
            found[name].append(line)
    return found


def test_every_field_is_told_once_under_its_section_in_the_schema_s_order():
    assert list(entries()) == list(FIELDS)
    heads = [line[3:] for line in reference.page().split("\n") if line.startswith("## ")]
    assert heads == list(dict.fromkeys(name.split(".")[0] for name in FIELDS))


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_default_type_range_mark_and_a_line_for_each_choice(name):
    field = FIELDS[name]
    first, second, *choices = (line.replace("\\", "") for line in entries()[name])
    default = "unset" if field.default is None else repr(field.default)
    assert first == f"- **`{name}`** = `{default}`: {field.meaning}"
    assert field.type.__name__ in second and field.rule.words in second
    assert [mark for mark in (IDENTITY, HORIZON, FREE) if second.endswith(f"; {mark})")] == [field.mark]
    assert choices == [f"  - `{choice}`: {meaning}" for choice, meaning in field.rule.choices.items()]
