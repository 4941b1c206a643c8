"""Schedules at points computed by hand."""

import math

import ml_collections
import numpy as np
import pytest

from lm.config import defaults
from lm.optim import schedules

HALF = math.sqrt(0.5)
LAST = 0.1 + 0.2 * (1 + math.cos(math.pi * 32 / 33))  # of a cycle of 33 steps


def _section(**fields):
    section = defaults("schedule")
    section.update({"peak": 0.5, "final": 0.1, "warmup_steps": 0} | fields)
    return ml_collections.FrozenConfigDict(section)


def _schedule(steps=100, **fields):
    return schedules.schedule(_section(**fields), steps)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"name": "constant"}, {0: 0.5, 30: 0.5, 100: 0.5}),
        ({"name": "linear"}, {0: 0.5, 25: 0.4, 50: 0.3, 99: 0.104, 100: 0.1, 130: 0.1}),
        ({"name": "cosine"}, {0: 0.5, 25: 0.1 + 0.2 * (1 + HALF), 50: 0.3, 75: 0.3 - 0.2 * HALF, 100: 0.1}),
        ({"name": "wsd", "decay_shape": "linear"}, {0: 0.5, 80: 0.5, 85: 0.4, 90: 0.3, 100: 0.1, 130: 0.1}),
        ({"name": "wsd", "decay_shape": "cosine"}, {79: 0.5, 80: 0.5, 85: 0.3 + 0.2 * HALF, 90: 0.3, 100: 0.1}),
        ({"name": "wsd", "decay_shape": "sqrt"}, {80: 0.5, 85: 0.3, 90: 0.5 - 0.4 * HALF, 100: 0.1, 130: 0.1}),
        (
            {"name": "wsd", "decay_shape": "exponential", "final": 0.125, "decay_fraction": 0.4},
            {60: 0.5, 80: 0.25, 90: 0.25 * HALF, 100: 0.125, 130: 0.125},
        ),
        ({"name": "wsd", "decay_fraction": 0.0}, {0: 0.5, 100: 0.5}),
        ({"name": "polynomial"}, {0: 0.5, 50: 0.2, 75: 0.125, 100: 0.1, 130: 0.1}),
        ({"name": "polynomial", "power": 0.5}, {0: 0.5, 75: 0.3, 100: 0.1}),
        ({"name": "cosine_restarts"}, {0: 0.5, 12.5: 0.3, 25: 0.5, 100: 0.1}),
        ({"name": "cosine_restarts", "cycles": 3}, {32: LAST, 33: 0.5, 50: 0.3, 67: 0.5, 99: LAST, 100: 0.1}),
        ({"name": "points", "points": ("10=0.3", "20=0.1", "60=0.5")}, {0: 0.3, 10: 0.3, 15: 0.2, 40: 0.3, 99: 0.5}),
        ({"name": "points", "points": ("5=1e-3",)}, {0: 1e-3, 5: 1e-3, 99: 1e-3}),
    ],
)
def test_without_warmup(fields, values):
    schedule = _schedule(**fields)
    for step, value in values.items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"name": "constant"}, {60: 0.5, 100: 0.5}),
        ({"name": "linear"}, {40: 0.4, 60: 0.3, 100: 0.1}),
        ({"name": "cosine"}, {40: 0.1 + 0.2 * (1 + HALF), 60: 0.3, 100: 0.1}),
        ({"name": "wsd", "decay_shape": "linear", "decay_fraction": 0.4}, {59: 0.5, 60: 0.5, 80: 0.3, 100: 0.1}),
        ({"name": "inverse_sqrt"}, {40: 0.5 * HALF, 80: 0.25, 180: 0.5 / 3}),
        ({"name": "polynomial"}, {60: 0.2, 80: 0.125, 100: 0.1}),
        ({"name": "cosine_restarts", "cycles": 2}, {40: 0.3, 60: 0.5, 80: 0.3, 100: 0.1}),
    ],
)
def test_with_warmup(fields, values):
    schedule = _schedule(**fields, warmup_steps=20)
    for step, value in ({0: 0.0, 1: 0.025, 10: 0.25, 20: 0.5} | values).items():
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5, err_msg=f"step {step}")


EVERY = [
    *((name, {}) for name in ("constant", "cosine", "linear", "polynomial", "inverse_sqrt", "cosine_restarts")),
    *(("wsd", {"decay_shape": shape}) for shape in schedules.DECAYS),
    ("points", {"points": ("0=0.5", "4000=0.2", "10000=0.1")}),
]


@pytest.mark.parametrize(("name", "fields"), EVERY)
@pytest.mark.parametrize("warmup", [0, 2000])
def test_no_step_jumps(name, fields, warmup):
    """In 10,000 steps no rate differs from the one before by a fiftieth of the peak, but where cosine restarts."""
    if (name == "inverse_sqrt" and not warmup) or (name == "points" and warmup):
        return
    values = np.asarray(_schedule(10_000, name=name, warmup_steps=warmup, **fields)(np.arange(10_001)))
    values = np.broadcast_to(values, 10_001)
    jumps = np.flatnonzero(np.abs(np.diff(values)) > 0.01) + 1
    quarter = (10_000 - warmup) // 4
    assert list(jumps) == ([warmup + quarter * cycle for cycle in (1, 2, 3)] if name == "cosine_restarts" else [])
    assert values.min() >= 0 and values.max() == values[warmup] == 0.5
    if name not in ("constant", "inverse_sqrt"):
        np.testing.assert_allclose(values[-1], 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "polynomial", "inverse_sqrt"])
@pytest.mark.parametrize("warmup", [1, 100])
def test_warmup_may_be_one_step_or_all(name, warmup):
    values = np.broadcast_to(_schedule(name=name, warmup_steps=warmup)(np.arange(101)), 101)
    assert values[0] == 0 and values[warmup] == values.max() == 0.5 and np.isfinite(values).all()


def test_every_shape_is_looked_at():
    assert {name for name, *_ in EVERY} == set(schedules.SHAPES)


@pytest.mark.parametrize(
    ("fields", "is_moved"),
    [
        ({"name": "constant"}, False),
        ({"name": "inverse_sqrt"}, False),
        ({"name": "points", "points": ("10=0.5", "90=0.1")}, False),
        *(({"name": name}, True) for name in ("cosine", "linear", "wsd", "polynomial", "cosine_restarts")),
        ({"name": "linear", "final": 0.5}, False),
    ],
)
def test_a_later_end_moves_what_depends_on_it(fields, is_moved):
    section = _section(**fields, warmup_steps=0 if fields["name"] == "points" else 10)
    assert schedules.moves(section, 100, 120, 50) is is_moved
    assert schedules.moves(section, 100, 120, 100) is is_moved
