"""A split's tokens in; a plan of windows out, each random access, with segment ids and positions; or of pairs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lm.data.packing import PACKINGS, Plan
from lm.data.pairs import Pairs, pairs
from lm.data.store import Part, Split


class Window(NamedTuple):
    """`context + 1` tokens.

    ids: int32. segments: int32, count the window's records from 1; 0 is padding. positions: int32, in the segment.
    is_scored: whether a token is scored as the target of the one before it.
    source: which part of the mixture it is from.
    """

    ids: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    is_scored: np.ndarray
    source: int


class Windows(NamedTuple):
    """The windows of a split of one part of the mixture."""

    split: Split
    plan: Plan
    context: int
    cross_records: bool
    source: int

    def unit(self, index: int) -> Window:
        """Return window `index`; what a split does not have is padding, all of it from window `plan.all` on."""
        starts, stops = self.plan.stretches(index)
        offsets = self.split.offsets
        is_rest = offsets[np.searchsorted(offsets, starts, "right") - 1] != starts
        is_rest[:1] = False  # of those that follow another, only a rest cannot share the end-of-text between them
        counts = stops - starts + 1
        at = np.cumsum(counts - 1 + is_rest) - (counts - 1)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.full(self.context + 1, -1)  # of each token, in the split
        places[np.repeat(at, counts) + within] = np.repeat(starts, counts) + within
        is_text = places >= 0
        ids = np.zeros(self.context + 1, np.int32)
        ids[is_text] = self.split.read(places[is_text])
        is_scored = is_text.copy()
        is_scored[at[is_rest]] = is_scored[0] = False
        if self.cross_records:
            is_first = np.arange(self.context + 1) == 0
        else:
            record = np.searchsorted(offsets, places, "right")
            is_first = np.append(True, (np.diff(places) != 1) | (np.diff(record) != 0))
        numbers = np.arange(self.context + 1)
        positions = numbers - np.maximum.accumulate(np.where(is_first, numbers, 0))
        segments, positions = ((field * is_text).astype(np.int32) for field in (np.cumsum(is_first), positions))
        return Window(ids, segments, positions, is_scored, self.source)

    def numbers(self) -> dict[str, Any]:
        """Return how many are trained on, and the share of their places that score a token."""
        places = self.plan.whole * self.context
        return {"windows": self.plan.whole, "filled": min(1.0, (self.split.tokens - 1) / max(1, places))}


Units = Windows | Pairs  # of a split of one part: what its rows are shaped from


def epoch(parts: Sequence[Part], units: Sequence[Units], context: int) -> int:
    """Return the places of an epoch's rows, free ones too: what its steps are counted by; `context` is the model's."""
    return context * sum(mine.plan.whole for part, mine in zip(parts, units, strict=True) if part.weight)


def planned(parts: Sequence[Part], split: str, section: Any, context: int) -> list[Units]:
    """Return the windows, or the pairs, of a split of every part.

    Args:
      parts: of the store.
      split: train or valid.
      section: config.data, resolved.
      context: tokens of a window after its first.
    """

    def units(source: int, part: Part) -> Units:
        mine: Split = getattr(part, split)
        if section.unit == "pair":
            return pairs(mine, source)
        plan = PACKINGS[section.packing](mine.offsets, mine.tokens, context)
        return Windows(mine, plan, context, section.cross_records, source)

    return [units(source, part) for source, part in enumerate(parts)]
