"""The one exception for a mistake of the user's: its text is the sentence that they read; and what ends in one."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class Refusal(Exception):
    """Raised with one sentence naming the bad value and what would be right; commands exit 2 with it."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the name most like `name`, or nothing when none is alike.

    Among dotted names, those of the same section are asked first, by their last part.
    """
    names = list(names)
    section, dot, last = name.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in names if other.rpartition(".")[0] == section]
    found = [section + dot + match for match in difflib.get_close_matches(last, siblings, n=1, cutoff=0.65)]
    found = found or difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def extra(module: str, name: str, what: str) -> ModuleType:
    """Return a module that the extra `name` of ours installs; without it, refuse `what` with the command that does."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Refusal(f"{what}: pip install 'lm[{name}]'.") from None
