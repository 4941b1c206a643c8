"""Pairs of ids, given and wanted, in; a row that an encoder–decoder reads, or a decoder, out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm.batch import Batch
from lm.text.tokenizer import Specials


class Task(NamedTuple):
    """What is given and what is wanted, int32 ids; what is wanted holds the end-of-text that closes it, if one does."""

    given: np.ndarray
    wanted: np.ndarray


def across(tasks: Sequence[Task], encoder: int, decoder: int, specials: Specials, source: int) -> Batch:
    """Return the row of an encoder–decoder: task n is segment n of both; end-of-text closes what is given.

    Args:
      tasks: what fits.
      encoder: tokens of the encoder's part.
      decoder: tokens of the decoder's.
      specials: ids.
      source: of the row.
    """
    read, said = _Fields(encoder), _Fields(decoder)
    for number, task in enumerate(tasks, 1):
        read.add(number, inputs=np.append(task.given, specials.end))
        before = np.append(specials.start, task.wanted)[:-1]
        said.add(number, inputs=before, targets=task.wanted, weights=1)
    return Batch(
        inputs=said.inputs,
        targets=said.targets,
        weights=said.weights,
        segments=said.segments,
        positions=said.positions,
        source=np.int32(source),
        encoder_inputs=read.inputs,
        encoder_segments=read.segments,
        encoder_positions=read.positions,
    )


def beside(tasks: Sequence[Task], context: int, source: int, has_prefix: bool) -> Batch:
    """Return the row of a decoder: task n is segment n, what is wanted stands behind what is given and alone is scored.

    Args:
      tasks: what fits, something being given in each.
      context: tokens of the row.
      source: of the row.
      has_prefix: let all that is given be seen from everywhere in it.
    """
    fields = _Fields(context)
    prefix = np.zeros(context, bool)
    for number, task in enumerate(tasks, 1):
        ids = np.append(task.given, task.wanted)
        places = np.arange(len(ids) - 1)
        here = fields.add(number, inputs=ids[:-1], targets=ids[1:], weights=places >= len(task.given) - 1)
        prefix[here] = places < len(task.given)
    return Batch(
        inputs=fields.inputs,
        targets=fields.targets,
        weights=fields.weights,
        segments=fields.segments,
        positions=fields.positions,
        source=np.int32(source),
        prefix=prefix if has_prefix else None,
    )


class _Fields:
    """Arrays of a length that segments are added to, one behind the other; what is left over is padding."""

    def __init__(self, length: int):
        self.inputs, self.targets, self.segments, self.positions = np.zeros((4, length), np.int32)
        self.weights = np.zeros(length, np.float32)
        self._stop = 0

    def add(self, number: int, inputs: np.ndarray, **fields) -> slice:
        """Add a segment; return its place."""
        place = slice(self._stop, self._stop + len(inputs))
        self._stop = place.stop
        for name, values in fields.items():
            getattr(self, name)[place] = values
        self.inputs[place], self.segments[place] = inputs, number
        self.positions[place] = np.arange(len(inputs))
        return place
