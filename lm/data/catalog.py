"""Source name → its records."""

from typing import Any

from lm.data import sources

SOURCES = {"embedded": sources.embedded, "files": sources.files}


def source(name: str, section: Any) -> sources.Source:
    """Return the source of a name, `kind` or `kind:rest`; section is config.data."""
    kind, _, rest = name.partition(":")
    return SOURCES[kind](rest, section.text_field)
