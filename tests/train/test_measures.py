"""The gradient noise scale of gradients whose covariance is known, and norms by path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.batch import Batch
from lm.config import defaults
from lm.objective.base import Objective
from lm.objective.losses import Rows
from lm.train import measures
from lm.train import state as states
from lm.train.step import make_step

MEAN = np.array([0.6, -0.4, 0.2, 0.8, 0.0])
DEVIATIONS = np.array([1.0, 0.5, 2.0, 0.1, 0.7])


def _step(**fields):
    """Return state and step of a loss whose gradient by `w` is the sum over rows of weight · the first five numbers."""
    section = defaults("train")
    section.update(fields)

    def loss(forward, params, batch, key):
        gradients, weights = batch.weights[:, :5], batch.weights[:, 5]
        return (
            jnp.sum(gradients * weights[:, None] * params["w"][None]) + params["b"]["c"] ** 2,
            weights.sum(),
            Rows(weights, weights),
        )

    optimizer = optax.sgd(0.5)
    params = {"w": jnp.zeros(5), "b": {"c": jnp.asarray(3.0)}}
    step = make_step(Objective(lambda context: context, None, loss), None, optimizer, lambda step: 0.5, 0, section)
    return states.create(params, optimizer), jax.jit(step)


def test_noise_of_a_known_covariance():
    """Over 2000 batches of rows of one token, some of no weight, the mean trace and square are the true ones."""
    generator = np.random.default_rng(0)
    state, step = _step(accumulate=4, noise_scale=True)
    state.params["b"]["c"] *= 0
    is_text = np.repeat([1, 1, 0, 1, 1, 1], 4)  # so that micro-batches have 5 rows that count
    found = []
    for _ in range(2000):
        gradients = MEAN + DEVIATIONS * generator.normal(size=(24, 5))
        rows = np.concatenate([gradients, is_text[:, None]], axis=1).astype(np.float32)
        _, metrics = step(state, Batch(*[rows] * 5, np.zeros(len(rows), np.int32)))
        found.append([metrics[f"noise/{name}"] for name in ("trace", "square", "scale")])
    trace, square, scale = np.asarray(found, np.float64).T
    np.testing.assert_allclose(scale, trace / square, rtol=1e-3)
    for values, true in ((trace, (DEVIATIONS**2).sum()), (square, (MEAN**2).sum())):
        assert abs(values.mean() - true) < 4 * values.std() / np.sqrt(2000) < 0.1 * true


def test_noise_of_micro_batches_of_unequal_weight():
    """By hand: gradients 3 (of weight 1) and 1 (of weight 2) per token, 5/3 together."""
    parts = [measures.micro_batch(jnp.float32(w), {"a": jnp.float32([g * w])}) for w, g in ((1, 3), (2, 1))]
    parts = jax.tree.map(jnp.add, *parts)
    found = measures.noise(parts, (5 / 3) ** 2, 3, 2)
    trace = ((9 + 1) / 2 - 25 / 9) / ((1 + 1 / 2) / 2 - 1 / 3)
    expected = {"trace": trace, "square": 25 / 9 - trace / 3, "scale": trace / (25 / 9 - trace / 3)}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"noise/{name}"], value, rtol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norms_by_path(accumulate):
    state, step = _step(accumulate=accumulate, group_norms=("w$|c$", "^b/"))
    rows = np.tile(np.float32([1, 2, 0, 0, 2, 1]), (4, 1))
    metrics = step(state, Batch(*[rows] * 5, np.zeros(len(rows), np.int32)))[1]
    by_c = accumulate * 2 * 3 / 4  # every micro-batch has c² in its sum, the batch a weight of 4
    expected = {"param": (3, 3), "grad": (np.hypot(3, by_c), by_c), "update": (np.hypot(1.5, by_c / 2), by_c / 2)}
    for name, (both, one) in expected.items():
        np.testing.assert_allclose(metrics[f"{name}_norm/w$|c$"], both, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(metrics[f"{name}_norm/^b/"], one, rtol=1e-6, err_msg=name)


def test_nothing_is_measured_unasked(equations):
    state, step = _step(accumulate=2)
    asked = _step(accumulate=2, noise_scale=True, group_norms=("w",))[1]
    rows = np.zeros((4, 6), np.float32)
    batch = Batch(*[rows] * 5, np.zeros(len(rows), np.int32))
    assert not any("/" in name for name in jax.eval_shape(step, state, batch)[1])
    count = lambda program: sum(1 for _ in equations(program, state, batch))
    assert count(asked) > count(step)
