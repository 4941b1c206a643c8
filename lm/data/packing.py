"""The lengths of records in; which stretch of a split's tokens goes into which window, out. Planned once, at the start.

A stretch [start, stop) is read with the token after it, so that it scores its tokens start + 1 to stop; that last one
opens the stretch beside it, or closes the window.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_GROUP = 4096  # records of a split that are packed by themselves, so that all groups can be packed side by side
_OPEN = 1024  # windows of a group that are open at a time


class Plan(NamedTuple):
    """Windows of a split.

    all: windows that together score every token once. whole: those of them to train on.
    stretches: window index → starts and stops of its stretches in order, none for a window that there is not.
    """

    all: int
    whole: int
    stretches: Callable[[int], np.ndarray]


def split(offsets: np.ndarray, tokens: int, context: int) -> Plan:
    """Concatenate and split: window w begins at token w × context. The last, if padded, is not trained on."""
    stop = tokens - 1

    def stretches(index: int) -> np.ndarray:
        start = index * context
        return np.array([[start], [min(start + context, stop)]])[:, : int(start < stop)]

    return Plan(-(-stop // context), stop // context, stretches)


def first_fit(offsets: np.ndarray, tokens: int, context: int) -> Plan:
    """Put each record into the first window that has room, whole; one longer than a window fills some, and its rest
    goes with the others. What stays free is padding.

    Groups of records are packed each by itself, and a group has a bounded number of open windows: where none has room,
    the one with least gives its place to a new one. A million records take about a second.
    """
    starts, lengths, is_rest = _pieces(offsets, tokens, context)
    room = np.minimum(lengths + is_rest, context)  # between an end-of-text and a rest, a place that scores nothing
    windows = _windows(room, context)
    order = np.argsort(windows, kind="stable")
    pieces = np.stack([starts, starts + lengths])[:, order]
    firsts = np.searchsorted(windows[order], np.arange(windows.max() + 2))
    count = len(firsts) - 1
    return Plan(
        count, count, lambda index: pieces[:, slice(*firsts[index : index + 2])] if index < count else pieces[:, :0]
    )


def _pieces(offsets: np.ndarray, tokens: int, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start and length of every record, longer ones in pieces; and whether a piece begins inside its record."""
    lengths = np.diff(offsets, append=tokens - 1)
    counts = -(-lengths // context)
    owners = np.repeat(np.arange(len(offsets)), counts)
    places = (np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)) * context
    return offsets[owners] + places, np.minimum(context, lengths[owners] - places), places > 0


def _windows(sizes: np.ndarray, context: int) -> np.ndarray:
    """Return the window of every piece, first-fit in each group: one step packs a piece of every group."""
    groups = -(-len(sizes) // _GROUP)
    table = np.zeros((groups, _GROUP), np.int32)
    table.ravel()[: len(sizes)] = sizes  # those that fill the last group up are of no size
    room, window = np.zeros((2, groups, _OPEN), np.int32)
    opened = np.zeros(groups, np.int64)
    found = np.empty_like(table)
    rows = np.arange(groups)
    for step in range(min(_GROUP, len(sizes))):
        size = table[:, step]
        slot = (room >= size[:, None]).argmax(axis=1)
        is_full = room[rows, slot] < size
        slot = np.where(is_full, room.argmin(axis=1), slot)
        room[rows[is_full], slot[is_full]] = context
        window[rows[is_full], slot[is_full]] = opened[is_full]
        opened += is_full
        room[rows, slot] -= size
        found[:, step] = window[rows, slot]
    return (found + (np.cumsum(opened) - opened)[:, None]).ravel()[: len(sizes)]


PACKINGS = {"split": split, "first_fit": first_fit}
