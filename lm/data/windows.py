"""A split's tokens in; a plan of windows out, each random access, with segment ids and positions."""

from typing import NamedTuple

import numpy as np

from lm.data.store import Split


class Window(NamedTuple):
    """`context + 1` consecutive tokens, int32 each: segment ids count the window's records from 1, 0 is padding."""

    ids: np.ndarray
    segments: np.ndarray
    positions: np.ndarray


class Windows(NamedTuple):
    """Concatenate and split: window w begins at token w × context, its last token is the next one's first."""

    split: Split
    context: int
    cross_records: bool

    @property
    def whole(self) -> int:
        """Number of windows without padding."""
        return (self.split.tokens - 1) // self.context

    @property
    def all(self) -> int:
        """Number of windows that together score every token once; the last may be padded."""
        return -(-(self.split.tokens - 1) // self.context)

    def window(self, index: int) -> Window:
        """Return window `index`; what a split does not have is padding, all of it from window `all` on."""
        if index >= self.all:
            return Window(*np.zeros((3, self.context + 1), np.int32))
        start = index * self.context
        stop = min(start + self.context + 1, self.split.tokens)
        ids = self.split.read(start, stop)
        places = np.arange(start, stop)
        if self.cross_records:
            segments, positions = np.ones_like(ids), np.arange(len(ids), dtype=np.int32)
        else:
            offsets = self.split.offsets
            record = np.searchsorted(offsets, places, "right") - 1
            begin = np.maximum(offsets[record], start)
            segments = (record - record[0] + 1).astype(np.int32)
            positions = (places - begin).astype(np.int32)
        missing = (0, self.context + 1 - len(ids))
        return Window(*(np.pad(field, missing) for field in (ids, segments, positions)))
