"""Growing batches, counted out."""

import math

import pytest

from lm.growth import Growth

GROWTHS = [(12, 4, 6), (12, 4, 7), (12, 4, 2), (12, 3, 1), (12, 1, 0), (12, 4, 0), (24, 8, 50)]


@pytest.mark.parametrize(("whole", "accumulate", "warmup"), GROWTHS)
def test_counted_out(whole, accumulate, warmup):
    """Step k has ⌊1 + (accumulate − 1) · k / warmup⌋ micro-batches; no sample is skipped or seen twice."""
    growth = Growth(whole, accumulate, warmup)
    seen = 0
    for step in range(warmup + 5):
        joined = accumulate if step >= warmup else 1 + (accumulate - 1) * step // warmup
        assert sum(join <= step for join in growth.joins) == joined
        samples = [growth.sample(step, row) for row in range(whole)]
        assert [row % accumulate < joined for row in range(whole)] == [sample is not None for sample in samples]
        count = joined * whole // accumulate
        assert sorted(sample for sample in samples if sample is not None) == list(range(seen, seen + count))
        assert growth.before(step) == seen
        assert growth.steps(seen) == step and growth.steps(seen + count / 4) == pytest.approx(step + 0.25)
        assert math.ceil(growth.steps(seen + 1)) == step + 1
        seen += count


def test_whole_batches_hold_their_rows_in_order():
    growth = Growth(8, 4, 0)
    assert [growth.sample(5, row) for row in range(8)] == list(range(40, 48))
