"""Validation numbers against their definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lm.evaluate import heldout


def measured(sums, parts, *stop, is_whole=True):
    """Return the measures of (part, (nats, tokens, correct, usual)) in place of batches; of those not given 0."""
    filled = ((part, heldout.Sums(*found, *[0.0] * (4 - len(found)))) for part, found in sums)
    return heldout.measure(lambda params, batch: batch, None, filled, parts, is_whole, *stop)


def test_numbers_are_their_definitions():
    values = measured([(0, (7.0, 3.0)), (0, (11.0, 5.0)), (0, (2.0, 1.0))], [("a", 13)])
    assert values.keys() == {"loss", "perplexity", "accuracy", "baseline_accuracy", "bits_per_byte"}
    assert values["loss"] == pytest.approx(20 / 9)
    assert values["perplexity"] == pytest.approx(math.exp(20 / 9))
    assert values["bits_per_byte"] == pytest.approx(20 / math.log(2) / 13)


def test_accuracy_stands_beside_that_of_the_most_frequent_target():
    values = measured([(0, (7.0, 3.0, 2.0, 1.0)), (0, (11.0, 5.0, 3.0, 0.0))], [("a", 13)], is_whole=False)
    assert values.keys() == {"loss", "perplexity", "accuracy", "baseline_accuracy"}
    assert values["accuracy"] == 5 / 8 and values["baseline_accuracy"] == 1 / 8


def test_the_most_frequent_target_is_counted_by_weight():
    batch = lambda targets, weights: SimpleNamespace(targets=np.array(targets), weights=np.array(weights, np.float32))
    rows = [batch([3, 3, 3, 5], [0, 0, 1, 1]), batch([5, 2, 2, 2], [1, 0, 1, 0])]
    counts = heldout.counted(rows, SimpleNamespace(labels=None, vocabulary=7))
    assert counts.tolist() == [0, 0, 1, 1, 0, 2, 0]
    assert heldout.usual(counts) == 5 and heldout.usual(counts, [5, 6]) == 2


def test_of_several_parts_each_has_its_numbers():
    values = measured([(0, (7.0, 3.0)), (1, (11.0, 5.0)), (0, (2.0, 1.0))], [("files:a/*.txt", 13), ("b", 17)])
    assert values["loss"] == pytest.approx(20 / 9)
    assert values["bits_per_byte"] == pytest.approx(20 / math.log(2) / 30)
    assert values["files:a/*.txt/loss"] == pytest.approx(9 / 4) and values["b/loss"] == pytest.approx(11 / 5)
    assert values["files:a/*.txt/bits_per_byte"] == pytest.approx(9 / math.log(2) / 13)
    assert values["b/bits_per_byte"] == pytest.approx(11 / math.log(2) / 17)


def test_one_batch_and_a_stop():
    assert measured([(0, (3.0, 2.0))], [("a", 1)])["loss"] == 1.5
    seen = []
    stop = lambda: len(seen) == 2
    batches = (seen.append(k) or (0, (1.0, 1.0)) for k in range(9))
    assert measured(batches, [("a", 1)], stop) is None
    assert seen == [0, 1]


def test_a_loss_beyond_floats_is_still_a_number():
    assert measured([(0, (1e6, 1.0))], [("a", 1)])["perplexity"] > 1e300
