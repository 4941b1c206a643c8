"""A small model trained by every optimizer and on every schedule; saved half-way, it goes on to the same bit."""

import jax
import numpy as np
import optax
import pytest

from lm import checkpoint, trees
from lm.model.transformer import Transformer
from lm.objective.catalog import objective
from lm.optim import build, schedules
from lm.optim.optimizers import OPTIMIZERS

STEPS = 16
# (optimizer, its peak, schedule and what it needs)
PAIRS = [
    ("adamw", 1e-2, "wsd", {"schedule__decay_fraction": 0.25, "schedule__warmup_steps": 3}),
    ("sgd", 3e-1, "cosine", {}),
    ("adafactor", 1e-1, "cosine_restarts", {"schedule__cycles": 2}),
    ("lion", 3e-3, "linear", {"schedule__warmup_steps": 3}),
    ("lamb", 3e-2, "polynomial", {}),
    ("muon", 1e-2, "points", {"schedule__points": ("0=0.001", "4=0.01", "16=0.0")}),
    ("schedule_free", 1e-2, "constant", {"schedule__warmup_steps": 3}),
    ("ademamix", 5e-3, "inverse_sqrt", {"schedule__warmup_steps": 4}),
]


@pytest.fixture(scope="module")
def model(tiny, random_batch, setting):
    """Return first parameters and the compiled loss with its gradient, which no optimizer or schedule enters."""
    config, batch = tiny(model__layers=2), random_batch()
    model, goal = Transformer(config.model), objective(config.objective, setting(config.model))
    rows = batch.inputs, batch.positions, batch.segments

    def loss(params):
        forward = lambda params, batch, key: model.apply({"params": params}, *rows)
        total, weight, _ = goal.loss(forward, params, batch, None)
        return total / weight

    params = jax.jit(model.init)(jax.random.key(0), *rows)["params"]
    return jax.device_put(params, jax.devices()[0]), jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize(("name", "peak", "shape", "fields"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_the_loss_falls_and_a_restored_run_is_the_same(tiny, model, tmp_path, name, peak, shape, fields):
    fields = {"optimizer__name": name, "schedule__peak": peak, "schedule__name": shape, "train__steps": STEPS} | fields
    config = tiny(**fields)
    optimizer = build.optimizer(config.optimizer, schedules.schedule(config.schedule, STEPS))
    params, gradient = model

    @jax.jit
    def update(params, state, by_params):
        updates, state = optimizer.update(by_params, state, params)
        return optax.apply_updates(params, updates), state

    def train(params, state, steps):
        losses = []
        for _ in range(steps):
            loss, by_params = gradient(params)
            losses.append(float(loss))
            params, state = update(params, state, by_params)
        return losses, params, state

    state = jax.device_put(jax.jit(optimizer.init)(params), jax.devices()[0])
    losses, *half = train(params, state, STEPS // 2)
    more, *whole = train(*half, STEPS // 2)
    assert more[-1] < losses[0] - 0.1

    saver = checkpoint.Saver(tmp_path, 1, 0, lambda words: None)
    saver.save(STEPS // 2, {"half": half}, {})
    saver.close()
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), half)
    again, *other = train(*checkpoint.restore(tmp_path / str(STEPS // 2), "half", template), STEPS // 2)
    assert again == more
    for path, one, two in zip(trees.paths(whole), jax.tree.leaves(whole), jax.tree.leaves(other), strict=True):
        assert np.array_equal(one, two), path


def test_every_optimizer_and_every_schedule_is_tried():
    assert {name for name, *_ in PAIRS} == set(OPTIMIZERS)
    assert {shape for _, _, shape, _ in PAIRS} == set(schedules.SHAPES)
