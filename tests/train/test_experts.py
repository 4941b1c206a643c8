"""A mixture of experts in the step: its losses and its experts' load, however a batch is cut and computed."""

import jax
import numpy as np
import pytest

from lm import trees

EXPERTS = {"model.family": "mixtral", "model.layers": 2, "model.experts": 5, "objective.router_z_loss": 0.02}


@pytest.fixture(scope="module")
def whole(tiny, assembled, random_state, random_batch):
    """Return the step, a batch with a row of padding, the state before, and state and metrics after it."""
    create, step = assembled(tiny(**EXPERTS, objective__balance_loss=0.3))
    batch = random_batch()
    is_padding = np.arange(8) == 3
    batch = batch._replace(
        segments=np.where(is_padding[:, None], 0, batch.segments), weights=batch.weights * ~is_padding[:, None]
    )
    before, step = random_state(create), jax.jit(step)
    return step, batch, before, *step(before, batch)


OTHERWISE = {
    "2 micro-batches, layers scanned and computed again": {
        "train.accumulate": 2,
        "model.unroll": 1,
        "model.remat": "full",
    },
    "4 micro-batches": {"train.accumulate": 4},
    "places for all": {"model.dispatch": "capacity", "model.expert_capacity": 2.5},
}


@pytest.mark.parametrize("otherwise", OTHERWISE.values(), ids=OTHERWISE)
def test_the_step_is_the_same(tiny, assembled, whole, otherwise):
    _, batch, before, after, metrics = whole
    _, step = assembled(tiny(**EXPERTS, **otherwise, objective__balance_loss=0.3))
    other, other_metrics = jax.jit(step)(before, batch)
    for name, value in metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-5, err_msg=name)
    moments = [jax.tree.leaves(state.opt_state) for state in (after, other)]
    for path, one, two in zip(trees.paths(before.opt_state), *moments, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-5 * float(np.abs(one).max()), err_msg=path)


def test_the_objective_is_the_loss_and_what_is_added(whole):
    """A row of padding, which warm-up of the batch has too, counts in none of them."""
    *_, metrics = whole
    added = 0.3 * metrics["train/balance"] + 0.02 * metrics["train/router_z"]
    np.testing.assert_allclose(metrics["objective"], metrics["loss"] + added, rtol=1e-6)
    assert metrics["train/balance"] > 1 and metrics["experts/dropped"] == 0
    assert metrics["experts/load_max"] > 1 > metrics["experts/load_min"]


def test_the_load_is_of_all_text(whole):
    """With a router that sees nothing, the first experts get all: of 5, each of 2 has five halves of its share."""
    step, batch, before, *_ = whole
    still = [("router/kernel$", lambda leaf: 0 * leaf), ("", lambda leaf: leaf)]
    change = trees.select(before.params, still)
    params = jax.tree.map(lambda function, leaf: function(leaf), change, before.params)
    _, metrics = step(before._replace(params=params), batch)
    expected = {"balance": 1.0, "router_z": np.log(5) ** 2}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"train/{name}"], value, rtol=1e-5)
    assert metrics["experts/load_max"] == 2.5 and metrics["experts/load_min"] == 0
