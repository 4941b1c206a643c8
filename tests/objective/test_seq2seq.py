"""Pairs: an input and its target in the rows of an encoder–decoder and of a decoder, whole or cut."""

import numpy as np
import pytest

from lm.data.pairs import Pair
from lm.objective.catalog import objective


def pair(inputs, targets):
    return Pair(np.array(inputs, np.int32), np.array(targets, np.int32), 2)


@pytest.fixture(scope="module")
def goal_of(tiny, setting):
    """Return a function: architecture, overrides → its objective with a context of 7 tokens."""

    def make(architecture, **fields):
        pairs = {"objective__name": "seq2seq", "data__source": "embedded:summaries"}
        config = tiny(model__architecture=architecture, model__context=7, **pairs, **fields)
        return objective(config.objective, setting(config.model))

    return make


@pytest.mark.parametrize(
    ("inputs", "targets", "read", "said", "scored"),
    [
        ([5, 6, 7], [8, 9], [5, 6, 7, 0, 0, 0, 0], [0, 8, 9, 0, 0, 0, 0], [8, 9, 0]),
        ([], [8], [0, 0, 0, 0, 0, 0, 0], [0, 8, 0, 0, 0, 0, 0], [8, 0]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [9], [1, 2, 3, 4, 5, 6, 0], [0, 9, 0, 0, 0, 0, 0], [9, 0]),
        ([1], [2, 3, 4, 5, 6, 7, 8, 9], [1, 0, 0, 0, 0, 0, 0], [0, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 8]),
        ([1], [], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [0]),
    ],
)
def test_an_encoder_reads_and_a_decoder_says(goal_of, inputs, targets, read, said, scored):
    goal = goal_of("encoder_decoder")
    assert goal.unit == "pair" and goal.length(7) == 0
    row = goal.shape(pair(inputs, targets), (0, 0))
    assert row.encoder_inputs.tolist() == read and row.inputs.tolist() == said
    assert row.encoder_segments.sum() == row.encoder_segments.max() * min(7, len(inputs) + 1)
    assert row.targets[row.weights > 0].tolist() == scored and row.weights.sum() == row.segments.sum() == len(scored)
    assert row.positions[: len(scored)].tolist() == list(range(len(scored))) and row.source == 2


@pytest.mark.parametrize(
    ("inputs", "targets", "read", "scored"),
    [
        ([5, 6, 7], [8, 9], [5, 6, 7, 8, 9, 0, 0], [8, 9, 0]),
        ([], [8], [0, 8, 0, 0, 0, 0, 0], [8, 0]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [9, 10], [4, 5, 6, 7, 8, 9, 10], [9, 10, 0]),
        ([1, 2], [2, 3, 4, 5, 6, 7, 8, 9], [2, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 8]),
    ],
)
@pytest.mark.parametrize("has_prefix", [False, True])
def test_a_decoder_reads_both_and_is_scored_on_the_target(goal_of, inputs, targets, read, scored, has_prefix):
    row = goal_of("decoder", objective__prefix=has_prefix).shape(pair(inputs, targets), (0, 0))
    assert row.inputs.tolist() == read and row.encoder_inputs is None
    assert row.targets[row.weights > 0].tolist() == scored
    kept = min(max(1, len(inputs)), 8 - len(scored))
    assert np.flatnonzero(row.weights).tolist() == list(range(kept - 1, kept - 1 + len(scored)))
    assert row.prefix is None if not has_prefix else row.prefix.tolist() == [place < kept for place in range(7)]
