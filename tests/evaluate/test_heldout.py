"""Validation numbers against their definitions."""

import math

import pytest

from lm.evaluate import heldout


def measured(sums, parts, *stop):
    """Return the measures of (part, (nats, tokens)) in place of batches."""
    return heldout.measure(lambda params, batch: batch, None, sums, parts, *stop)


def test_numbers_are_their_definitions():
    values = measured([(0, (7.0, 3.0)), (0, (11.0, 5.0)), (0, (2.0, 1.0))], [("a", 13)])
    assert values.keys() == {"loss", "perplexity", "bits_per_byte"}
    assert values["loss"] == pytest.approx(20 / 9)
    assert values["perplexity"] == pytest.approx(math.exp(20 / 9))
    assert values["bits_per_byte"] == pytest.approx(20 / math.log(2) / 13)


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
