"""Validation numbers against their definitions."""

import math

import pytest

from lm.evaluate import heldout


def test_numbers_are_their_definitions():
    sums = [(7.0, 3.0), (11.0, 5.0), (2.0, 1.0)]
    values = heldout.measure(lambda params, batch: batch, None, sums, text_bytes=13)
    assert values["loss"] == pytest.approx(20 / 9)
    assert values["perplexity"] == pytest.approx(math.exp(20 / 9))
    assert values["bits_per_byte"] == pytest.approx(20 / math.log(2) / 13)


def test_one_batch_and_a_stop():
    assert heldout.measure(lambda params, batch: batch, None, [(3.0, 2.0)], 1)["loss"] == 1.5
    seen = []
    stop = lambda: len(seen) == 2
    batches = (seen.append(k) or (1.0, 1.0) for k in range(9))
    assert heldout.measure(lambda params, batch: batch, None, batches, 1, stop) is None
    assert seen == [0, 1]


def test_a_loss_beyond_floats_is_still_a_number():
    assert heldout.measure(lambda params, batch: batch, None, [(1e6, 1.0)], 1)["perplexity"] > 1e300
