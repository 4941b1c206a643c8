"""Rows of text that grow and may be exchanged: prompts in, tokens and their scores out."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lm.generate import decode, samplers
from lm.generate.method import Ready
from lm.generate.sampling import cut, keys_of, read


class Rows:
    """Rows that go on from prompts, so many copies of each side by side.

    added, scores: the tokens of each row, and their natural logs under the model. is_full: bool `(rows,)`, no room is
    left in the context.
    """

    def __init__(self, ready: Ready, prompts: list[list[int]], section: Any, copies: int):
        """Read the prompts. Copy c draws token number n with fold_in(fold_in(key(sample.seed), c), n)."""
        self._ready, self._most = ready, section.max_new_tokens
        self._settings = samplers.settings(section, ready.tokenizer)
        self._keys = keys_of(section.seed, np.tile(np.arange(copies), len(prompts)))
        self._rows = [[*prompt] for prompt in prompts for _ in range(copies)]  # as they are read
        self.added: list[list[int]] = [[] for _ in self._rows]
        self.scores: list[list[float]] = [[] for _ in self._rows]
        self.is_full = self._is_stale = np.zeros(len(self._rows), bool)
        self._reading = read(ready, ready.model.config.context, prompts, self._most, copies)
        self._seen = jax.device_get(self._reading.text.lengths)

    def add(self, count: int, is_over: Sequence[bool]) -> None:
        """Add tokens to rows that are not over: `count`, or until an end, sample.max_new_tokens or a full context.

        A row that was full goes on from the last half of the context, read anew; so does one that was over for a while.
        """
        is_over = np.asarray(is_over)
        if np.any((self.is_full | self._is_stale) & ~is_over):
            self._read_anew()
        reading = self._reading._replace(is_over=is_over)
        reading = decode.extend(self._ready.model, self._ready.params, reading, self._keys, self._settings, count)
        ids, lengths, logs = jax.device_get((reading.text.ids, reading.text.lengths, reading.scores))
        for index in np.flatnonzero(~is_over):
            start, room = self._seen[index], self._most - len(self.added[index])
            new = slice(start, min(lengths[index], start + room))
            self.added[index] += ids[index, new].tolist()
            self._rows[index] += ids[index, new].tolist()
            self.scores[index] += logs[index, new].tolist()
        self._reading, self._seen, self.is_full = reading, lengths, lengths == ids.shape[1]
        self._is_stale = self._is_stale | is_over  # what is added to the others changes their next logits

    def take(self, numbers: Sequence[int]) -> None:
        """Let each row go on from what the row of the given number has, which is of the same prompt."""
        numbers = np.asarray(numbers, np.int32)
        self._rows, self.added, self.scores = (
            [[*lists[number]] for number in numbers] for lists in (self._rows, self.added, self.scores)
        )
        self._seen, self.is_full, self._is_stale = (of[numbers] for of in (self._seen, self.is_full, self._is_stale))
        self._reading = _taken(self._reading, numbers)

    def _read_anew(self) -> None:
        context = self._ready.model.config.context
        self._rows = [cut(row, context) for row in self._rows]
        self._seen = np.asarray([len(row) for row in self._rows], np.int32)
        begun = self._seen - np.asarray([len(new) for new in self.added], np.int32)
        self._reading = read(self._ready, context, self._rows, context, begun=begun)
        self._is_stale = np.zeros(len(self._rows), bool)


@partial(jax.jit, donate_argnames="reading")
def _taken(reading: decode.Reading, numbers_B) -> decode.Reading:
    return jax.tree.map(lambda leaf: leaf[numbers_B], reading)
