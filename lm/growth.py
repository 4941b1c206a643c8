"""How batches grow: accumulation and a warm-up in; micro-batches and rows of every step, and steps of a length out."""

import bisect
from typing import NamedTuple


class Growth(NamedTuple):
    """Batches whose micro-batches join one after another: from one at step 0 linearly to all at step `warmup`.

    Micro-batch i of a batch holds its rows r with r % accumulate == i, so that every device keeps its rows.

    whole: rows of a whole batch, a multiple of accumulate. accumulate: micro-batches of a whole batch.
    warmup: steps until a batch is whole; 0: it always is.
    """

    whole: int
    accumulate: int
    warmup: int

    @property
    def joins(self) -> tuple[int, ...]:
        """The first step, counted from 0, that each micro-batch takes part in."""
        return tuple(-(-i * self.warmup // max(1, self.accumulate - 1)) for i in range(self.accumulate))

    def before(self, step: int) -> int:
        """Return the rows of all steps before `step`."""
        return self.whole // self.accumulate * sum(max(0, step - join) for join in self.joins)

    def sample(self, step: int, row: int) -> int | None:
        """Return which of all rows so far, from 0, is a row of a step; None where its micro-batch takes no part."""
        joined = bisect.bisect_right(self.joins, step)
        place, micro_batch = divmod(row, self.accumulate)
        return self.before(step) + place * joined + micro_batch if micro_batch < joined else None

    def steps(self, rows: float) -> float:
        """Return how many steps hold so many rows, a part of the last one as a fraction."""
        done = bisect.bisect_right(range(self.warmup + int(rows // self.whole) + 1), rows, key=self.before) - 1
        return done + (rows - self.before(done)) / (self.before(done + 1) - self.before(done))
