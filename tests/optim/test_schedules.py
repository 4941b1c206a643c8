"""Schedules at points computed by hand."""

import math

import ml_collections
import numpy as np
import pytest

from lm.config import defaults
from lm.optim import schedules


def _schedule(steps=100, **fields):
    section = defaults("schedule")
    section.update({"peak": 0.5, "final": 0.1, "warmup_steps": 0} | fields)
    return schedules.schedule(ml_collections.FrozenConfigDict(section), steps)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", {0: 0.5, 30: 0.5, 100: 0.5}),
        ("linear", {0: 0.5, 25: 0.4, 50: 0.3, 99: 0.104, 100: 0.1, 130: 0.1}),
        ("cosine", {0: 0.5, 25: 0.1 + 0.2 * (1 + math.sqrt(0.5)), 50: 0.3, 75: 0.3 - 0.2 * math.sqrt(0.5), 100: 0.1}),
    ],
)
def test_without_warmup(name, values):
    schedule = _schedule(name=name)
    for step, value in values.items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", {60: 0.5, 100: 0.5}),
        ("linear", {40: 0.4, 60: 0.3, 100: 0.1}),
        ("cosine", {40: 0.1 + 0.2 * (1 + math.sqrt(0.5)), 60: 0.3, 100: 0.1}),
    ],
)
def test_with_warmup(name, values):
    schedule = _schedule(name=name, warmup_steps=20)
    for step, value in ({0: 0.0, 1: 0.025, 10: 0.25, 20: 0.5} | values).items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5, err_msg=f"step {step}")


@pytest.mark.parametrize("name", schedules.SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 20, 100])
def test_no_step_jumps(name, warmup):
    schedule = _schedule(name=name, warmup_steps=warmup)
    values = np.array([schedule(step) for step in range(101)])
    steepest = max(0.5 / max(1, warmup), 0.4 / max(1, 100 - warmup) * math.pi / 2)
    assert np.isfinite(values).all() and values.max() <= 0.5 + 1e-6
    assert np.abs(np.diff(values)).max() <= steepest + 1e-6
    assert values[warmup] == np.float32(0.5)
