"""What keeps experts in use: added to a loss in training, row by row, and summed for the log."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm.config import defaults
from lm.objective.losses import Rows
from lm.objective.routing import routed

ROUTING = ml_collections.ConfigDict(  # of 2 layers, 3 rows, 2 experts
    {
        "balance": np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.5]]),
        "z": np.array([[0.1, 0.2, 0.3], [0.5, 0.7, 0.1]]),
        "load": np.arange(12.0).reshape(2, 3, 2),
        "dropped": np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]),
    }
)
WEIGHTS = np.array([2.0, 0.5, 0.0])
SUMS = jnp.float32(7.0), jnp.float32(2.5), Rows(np.ones(3), WEIGHTS)


def _section(**fields):
    section = defaults("objective")
    section.update(fields)
    return section


@pytest.mark.parametrize(("balance", "z"), [(0.0, 0.0), (0.25, 0.0), (0.0, 2.0), (0.25, 2.0)])
def test_what_is_added_and_what_is_said(balance, z):
    """Each row's statistics count as much as its weights, so that divided by them they are means over tokens."""
    total, weight, rows = routed(SUMS, ROUTING, _section(balance_loss=balance, router_z_loss=z), "key")
    balances, zs = 2 * 2.0 + 0.5 * 1.5, 2 * 0.3 + 0.5 * 0.45
    np.testing.assert_allclose(total, 7 + balance * balances + z * zs, rtol=1e-6)
    np.testing.assert_allclose([rows.routed.balance, rows.routed.z], [balances, zs], rtol=1e-6)
    np.testing.assert_array_equal(rows.routed.load, [[0 + 2 + 4, 1 + 3 + 5], [6 + 8 + 10, 7 + 9 + 11]])
    assert rows.routed.dropped == 6 and weight == 2.5
    assert rows[:2] == SUMS[2][:2]


def test_an_evaluation_adds_nothing():
    total, _, rows = routed(SUMS, ROUTING, _section(), None)
    assert total == 7 and rows.routed.dropped == 6


def test_a_dense_model_has_nothing_to_add():
    assert routed(SUMS, None, _section(), "key") is SUMS
