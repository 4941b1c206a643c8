"""A regular expression in Python's syntax in; the same out as Rust's libraries read it, or why there is none.

What `re.fullmatch` matches, the result matches: every letter is written by its number, and classes such as \\w by
Python's own tables, since the two languages do not agree on them.
"""

import functools
import itertools
import re
import warnings
from re import _constants as codes  # the one reading of the syntax that is Python's own
from re import _parser as parser
from typing import Any

_ANY = r"[\x{0}-\x{10FFFF}]"
_LAST = 0x10FFFF
_CLASSES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}
_IRREGULAR = {
    codes.ASSERT: "a look-ahead or look-behind",
    codes.ASSERT_NOT: "a look-ahead or look-behind",
    codes.GROUPREF: "a reference to a group",
    codes.GROUPREF_EXISTS: "a reference to a group",
    codes.ATOMIC_GROUP: "an atomic group",
    codes.POSSESSIVE_REPEAT: "a possessive quantifier",
}


def translated(pattern: str) -> str:
    """Return the expression for Rust's `regex-syntax`, which matches whole texts and has no anchors.

    Raises:
      ValueError: it is none, or has what takes more than a finite automaton.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that [[ may mean a set of sets one day
            tree = parser.parse(pattern)
        return _sequence(tree, tree.state.flags, True, True)
    except (re.error, OverflowError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _sequence(tree: Any, flags: int, is_first: bool, is_last: bool) -> str:
    """Return a part of the expression; is_first, is_last: whether it begins and ends where the text does."""
    last = len(tree) - 1
    parts = enumerate(tree)
    return "".join(_part(*part, flags, is_first and i == 0, is_last and i == last) for i, part in parts)


def _part(code: Any, value: Any, flags: int, is_first: bool, is_last: bool) -> str:
    if code in (codes.LITERAL, codes.NOT_LITERAL):
        return _folded(f"[{'^' if code is codes.NOT_LITERAL else ''}{_letter(value)}]", flags)
    if code is codes.ANY:
        return _ANY if flags & re.DOTALL else r"[^\x{A}]"
    if code is codes.IN:
        return _folded(_set(value, flags), flags)
    if code is codes.BRANCH:
        return f"(?:{'|'.join(_sequence(one, flags, is_first, is_last) for one in value[1])})"
    if code is codes.SUBPATTERN:
        _, added, taken, inner = value
        return f"(?:{_sequence(inner, (flags | added) & ~taken, is_first, is_last)})"
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = value
        most = "" if most is codes.MAXREPEAT else most
        return f"(?:{_sequence(inner, flags, False, False)}){{{least},{most}}}"
    if code is codes.AT:
        starts, ends = (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING), (codes.AT_END, codes.AT_END_STRING)
        if (is_first and value in starts) or (is_last and value in ends):
            return ""
        raise ValueError("it has an anchor or a boundary within: it is the whole text that matches")
    raise ValueError(f"it has {_IRREGULAR[code]}, which no finite automaton follows")


def _folded(text: str, flags: int) -> str:
    return f"(?i:{text})" if flags & re.IGNORECASE else text


def _set(items: Any, flags: int) -> str:
    """Return a class of letters."""
    parts = []
    for code, value in items:
        if code is codes.LITERAL:
            parts.append(_letter(value))
        elif code is codes.RANGE:
            parts.append("-".join(map(_letter, value)))
        elif code is codes.CATEGORY:
            kind = str(value).removeprefix("CATEGORY_")
            members = _members(kind.removeprefix("NOT_"), bool(flags & re.ASCII))
            parts.append(f"[^{members}]" if kind.startswith("NOT_") else members)
    return f"[{'^' if items[0][0] is codes.NEGATE else ''}{''.join(parts)}]"


@functools.cache
def _members(kind: str, is_ascii: bool) -> str:
    """Return the ranges of letters that \\d, \\s or \\w stands for."""
    is_member = re.compile(_CLASSES[kind], re.ASCII if is_ascii else 0).match
    numbers = [number for number in range(_LAST + 1) if is_member(chr(number))]
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(run) for _, run in runs)]
    return "".join(f"{_letter(first)}-{_letter(last)}" for first, last in ends)


def _letter(number: int) -> str:
    if 0xD800 <= number <= 0xDFFF:
        raise ValueError("it has a surrogate, which no text in UTF-8 has")
    return f"\\x{{{number:X}}}"
