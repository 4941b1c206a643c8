"""Source name → its records."""

from typing import Any

from lm.data import embedded, files, tfds
from lm.data.sources import Source

SOURCES = {"embedded": embedded.embedded, "files": files.files, "tfds": tfds.prepared}


def source(name: str, section: Any) -> Source:
    """Return the source of a name, `kind` or `kind:rest`; section is config.data."""
    kind, _, rest = name.partition(":")
    return SOURCES[kind](rest, section)
