"""The step: pure, the same for any number of micro-batches, and unmoved by what is not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm import trees
from lm.batch import Batch
from lm.config import defaults
from lm.objective.base import Objective
from lm.objective.losses import Rows
from lm.optim.optimizers import OPTIMIZERS
from lm.train import state as states
from lm.train.step import make_step


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# A toy whose every gradient is chosen by the batch. Of a row's weights: 0 to 2 multiply the squares of the three
# parameters, 3 is added to the loss, 4 is the row's weight, 5 multiplies a random number.
def _toy_loss(forward, params, batch, key):
    factors = batch.weights
    squares_B = sum(factors[:, i] * jnp.sum(leaf**2) for i, leaf in enumerate(jax.tree.leaves(params)))
    losses_B = squares_B + factors[:, 3] + jax.random.uniform(key) * factors[:, 5]
    return jnp.sum(losses_B) + EXTRA * factors[:, 4].sum(), factors[:, 4].sum(), Rows(losses_B, factors[:, 4])


@functools.cache
def _toy(accumulate=1, sources=(), **fields):
    section = defaults("train")
    section.update({"accumulate": accumulate} | fields)
    objective = Objective(lambda context: context, None, _toy_loss)
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(schedule))
    params = {"a": jnp.arange(1.0, 4.0), "b": {"c": jnp.full((2, 2), 0.5), "d": jnp.full(5, -2.0)}}
    step = jax.jit(make_step(objective, None, optimizer, schedule, 7, section, sources))
    return states.create(params, optimizer, is_averaged=section.ema > 0), step


def _factors(*rows):
    ids = np.zeros((len(rows), 6), np.int32)
    return Batch(ids, ids, np.array(rows, np.float32), ids, ids, np.arange(len(rows), dtype=np.int32) % 3)


EXTRA = 0.25  # what the toy adds for each token, as label smoothing does
FINE = (1, 2, 3, 0.5, 4, 0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_metrics(accumulate):
    state, step = _toy(accumulate)
    state, metrics = step(state, _factors(FINE, (1, 2, 3, 1.5, 0, 0)))
    loss = (2 * 14 + 4 * 1 + 6 * 20 + 2) / 4
    norm = np.sqrt(4 * 4 * 14 + 16 * 4 * 1 + 4 * 36 * 20) / 4
    objective = loss + EXTRA
    expected = {
        "loss": loss,
        "objective": objective,
        "grad_norm": norm,
        "learning_rate": 0.1,
        "skipped": 0,
        "non_finite": -1,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)
    assert state.step == 1 and state.skipped == 0


def test_the_parts_of_a_mixture():
    """Rows are of sources 0, 1, 2, 0; nothing of source 3; source 2 has no weight."""
    state, step = _toy(2, sources=("a", "b", "c", "d"))
    rows = [FINE, (1, 2, 3, 1.5, 2, 0), (5, 6, 7, 8, 0, 0), (3, 0, 0, 0.5, 1, 0)]
    _, metrics = step(state, _factors(*rows))
    losses = [14 + 2 * 1 + 3 * 20 + 0.5, 14 + 2 * 1 + 3 * 20 + 1.5, 0, 3 * 14 + 0.5]
    np.testing.assert_allclose(metrics["train/a/loss"], (losses[0] + losses[3]) / 5, rtol=1e-6)
    np.testing.assert_allclose(metrics["train/b/loss"], losses[1] / 2, rtol=1e-6)
    assert not np.isfinite(metrics["train/c/loss"]) and np.isnan(metrics["train/d/loss"])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_non_finite_changes_nothing_and_is_named(accumulate, bad, place):
    """Places 0 to 2 spoil the gradient of one parameter, place 3 the loss alone."""
    state, step = _toy(accumulate)
    state, _ = step(state, _factors(FINE, FINE))
    spoiled = list(FINE)
    spoiled[place] = bad
    after, metrics = step(state, _factors(FINE, spoiled))
    assert metrics["non_finite"] == place and metrics["skipped"] == 1
    assert after.step == 2 and after.skipped == 1
    assert _bits(after.params) == _bits(state.params) and _bits(after.opt_state) == _bits(state.opt_state)
    again, metrics = step(after, _factors(FINE, FINE))
    straight, _ = step(state, _factors(FINE, FINE))
    assert _bits(again.params) == _bits(straight.params) != _bits(state.params)
    np.testing.assert_allclose(metrics["learning_rate"], 0.09, rtol=1e-6)
    assert metrics["non_finite"] == -1 and metrics["skipped"] == 1


def test_the_average_is_of_the_weights_after_good_steps():
    """Weights w1, w2, …: Σ decay^(n − i) wi / Σ decay^(n − i)."""
    state, step = _toy(ema=0.75)
    assert state.ema["a"] is not state.params["a"]  # a step that is given the state may overwrite both
    spoiled = (np.nan, *FINE[1:])
    weights = []
    for rows in ((FINE, FINE), (FINE, spoiled), (spoiled, FINE), ((1, 0, 5, 0, 1, 0), FINE), (FINE, FINE)):
        before, (state, metrics) = state, step(state, _factors(*rows))
        if metrics["non_finite"] == -1:
            weights.append(state.params)
        else:
            assert _bits(state.ema) == _bits(before.ema)
        powers = 0.75 ** np.arange(len(weights))[::-1]
        for ema, *each in zip(*(jax.tree.leaves(tree) for tree in (state.ema, *weights)), strict=True):
            expected = np.tensordot(powers / powers.sum(), np.asarray(each, np.float64), 1)
            np.testing.assert_allclose(ema, expected, rtol=1e-6)
    assert len(weights) == 3 and states.evaluated(state) is state.ema
    plain, _ = _toy()
    assert plain.ema is None and states.evaluated(plain) is plain.params


def test_micro_batches_join_one_after_another():
    """Of 4 micro-batches in 8 rows, 1, 1, 2, 3 and 4 are computed; what the others hold does not matter."""
    state, step = _toy(4, batch_warmup_steps=4)
    for number, joined in enumerate((1, 1, 2, 3, 4, 4)):
        rows = np.random.default_rng(number).uniform(1, 2, (8, 6))
        is_in = np.arange(8) % 4 < joined
        rows[:, 5] = 0
        before = state._replace(step=jnp.int32(number))
        after, metrics = step(before, _factors(*np.where(is_in[:, None], rows, np.nan)))
        whole, expected = _toy(1)[1](before, _factors(*(rows * is_in[:, None])))
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
        for one, other in zip(jax.tree.leaves(after.params), jax.tree.leaves(whole.params), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_batch_without_weight_is_not_divided_by_zero():
    state, step = _toy(1)
    _, metrics = step(state, _factors((0, 0, 0, 0, 0, 0)))
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0 and metrics["non_finite"] == -1


def test_every_step_and_micro_batch_has_its_key():
    state, step = _toy(2)
    draw = lambda number, *rows: float(step(state._replace(step=jnp.int32(number)), _factors(*rows))[1]["loss"])
    first, second = (0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 1, 0)
    draws = [draw(number, *rows) for number in (0, 1, 2) for rows in ((first, second), (second, first))]
    assert len(set(draws)) == 6 and draws == [
        draw(number, *rows) for number in (0, 1, 2) for rows in ((first, second), (second, first))
    ]


def test_many_micro_batches_are_summed_in_float32():
    """1024 rows that each ask for the same: in bfloat16, whose counting ends at 256, half of them would be lost."""
    section = defaults("train")
    section.accumulate = 512

    def loss(forward, params, batch, key):
        weights_B = batch.weights[:, 0]
        return jnp.sum(params["a"].astype("float32")) * weights_B.sum(), weights_B.sum(), Rows(weights_B, weights_B)

    optimizer = optax.sgd(1.0)
    step = make_step(Objective(lambda context: context, None, loss), None, optimizer, lambda step: 1.0, 0, section)
    ids = np.ones((1024, 1), np.int32)
    batch = Batch(ids, ids, ids.astype(np.float32), ids, ids, ids[:, 0])
    state, metrics = jax.jit(step)(states.create({"a": jnp.zeros(3, jnp.bfloat16)}, optimizer), batch)
    assert state.params["a"].dtype == jnp.bfloat16 and (np.asarray(state.params["a"], np.float32) == -1).all()
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(3), rtol=1e-3)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"schedule_free"}))
def test_a_step_keeps_every_dtype_of_the_state(tiny, assembled, random_batch, name):
    """In bfloat16 too, which schedule_free refuses."""
    config = tiny(optimizer__name=name, optimizer__slow_warmup_steps=3, model__parameter_dtype="bfloat16")
    create, step = assembled(config)
    before = jax.eval_shape(create)
    after, _ = jax.eval_shape(step, before, random_batch())
    kinds = lambda state: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
    assert kinds(after) == kinds(before) and jnp.dtype("bfloat16") in {dtype for _, dtype in kinds(before)}


@pytest.fixture(scope="module")
def whole(tiny, assembled, random_state, random_batch):
    """Return the model's compiled step, its state before, and state and metrics after a step on the whole batch."""
    create, step = assembled(tiny())
    step, before = jax.jit(step), random_state(create)
    return step, before, *step(before, random_batch())


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_are_one_batch(tiny, assembled, random_batch, whole, accumulate):
    _, before, after, metrics = whole
    _, step = assembled(tiny(train__accumulate=accumulate))
    assert f"length={accumulate}" in str(jax.make_jaxpr(step)(before, random_batch()))
    other, other_metrics = jax.jit(step)(before, random_batch())
    for name, value in metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-5, err_msg=name)
    moments = [jax.tree.leaves(state.opt_state) for state in (before, after, other)]
    for path, old, one, two in zip(trees.paths(before.opt_state), *moments, strict=True):
        if not path.endswith("key/bias"):  # softmax is blind to it: its gradient is only rounding
            assert np.any(old != one), path
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-5 * float(np.abs(one).max()), err_msg=path)


def test_uneven_weights_are_weighted(random_batch, whole):
    """The loss is the mean over weights, so that a batch twice as heavy has the same."""
    step, before, _, metrics = whole
    batch = random_batch()
    assert len(np.unique(batch.weights.sum(1))) > 4
    _, heavy = step(before, batch._replace(weights=2 * batch.weights))
    np.testing.assert_allclose(heavy["loss"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(heavy["grad_norm"], metrics["grad_norm"], rtol=1e-5)


def test_step_is_pure_and_dropout_differs_by_step(tiny, assembled, random_state, random_batch):
    create, step = assembled(tiny(model__dropout=0.2))
    state, step, batch = random_state(create), jax.jit(step), random_batch()
    once, twice = step(state, batch), step(state, batch)
    assert _bits(once) == _bits(twice)
    later, metrics = step(state._replace(step=jnp.int32(1)), batch)
    assert metrics["loss"] != once[1]["loss"] and _bits(later.params) != _bits(once[0].params)


def test_a_spoiled_batch_leaves_the_model_as_it_was(random_batch, whole):
    step, _, before, _ = whole
    batch = random_batch(1)
    batch.weights[3, 0] = np.nan
    after, metrics = step(before, batch)
    assert metrics["non_finite"] == 0 and metrics["skipped"] == after.skipped == 1
    assert _bits(after.params) == _bits(before.params) and _bits(after.opt_state) == _bits(before.opt_state)
