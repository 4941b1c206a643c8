"""The one exception for a mistake of the user's: its text is the sentence that they read."""

import difflib
from collections.abc import Iterable


class Refusal(Exception):
    """Raised with one sentence naming the bad value and what would be right; commands exit 2 with it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean X?` for the name most like `name`, or nothing when none is alike."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
