"""Source name → its records."""

from lm.data import sources

SOURCES = {"embedded": sources.embedded, "files": sources.files}


def source(name: str, field: str) -> sources.Source:
    """Return the source that data.source names, as `kind` or `kind:rest`."""
    kind, _, rest = name.partition(":")
    return SOURCES[kind](rest, field)
