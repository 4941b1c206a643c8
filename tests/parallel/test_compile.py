"""The same losses on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from lm import trees
from lm.batch import Batch
from lm.families.catalog import FAMILIES
from lm.objective.base import Objective
from lm.objective.losses import Rows
from lm.optim import build
from lm.parallel import compile as compiling
from lm.parallel import rules
from lm.parallel.mesh import AXES, make_mesh
from lm.train import state as states
from lm.train.step import make_step


@pytest.fixture(scope="module")
def train(assembled, random_state, random_batch):
    """Return a function: config and mesh → the losses of 5 steps, the last state, and whether the first was deleted."""

    def run(config, mesh):
        create, step = assembled(config, rules.constrain(mesh))
        first = state = jax.device_put(random_state(create), rules.shardings(jax.eval_shape(create), mesh))
        step = compiling.compile_step(step, state, mesh)
        losses = []
        for number in range(5):
            state, metrics = step(state, jax.device_put(random_batch(number), rules.rows(mesh)))
            losses.append(float(metrics["loss"]))
        return losses, state, all(leaf.is_deleted() for leaf in jax.tree.leaves(first))

    return run


OPTIONS = {"positions": "relative", "value_embeddings": 2, "residual_scalars": True, "qk_norm": True, "kv_heads": 4}


@pytest.fixture(scope="module", params=[*FAMILIES, "options"])
def single(request, tiny, train):
    """Return the model's overrides, and the losses on one device."""
    mesh = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), AXES)
    model = OPTIONS if request.param == "options" else {"family": request.param}
    model = {f"model.{name}": value for name, value in model.items()}
    losses, _, is_donated = train(tiny(**model), mesh)
    assert is_donated and len(set(losses)) == 5
    return model, losses


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (1, 8), (2, 4)])
def test_losses_are_those_of_one_device(tiny, train, single, data, fsdp):
    model, expected = single
    config = tiny(**model, parallel__mesh__data=data, parallel__mesh__fsdp=fsdp)
    mesh = make_mesh(config.parallel.mesh, config.data.batch_size, config.train.accumulate)
    losses, state, is_donated = train(config, mesh)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert is_donated
    for path, leaf in zip(trees.paths(state), jax.tree.leaves(state), strict=True):
        assert len(leaf.addressable_shards) == 8
        share = fsdp if path.endswith(("kernel", "embed/embedding", "values/embedding")) else 1
        assert leaf.addressable_shards[0].data.size * share == leaf.size, path


LEAVES = {
    "embed": {"embedding": (16, 6)},
    "decoder": {
        "norm": {"scale": (6,)},
        "block": {
            "attention": {
                "query": {"kernel": (2, 6, 2, 5), "bias": (2, 2, 5)},
                "out": {"kernel": (2, 2, 5, 6)},
            }
        },
    },
}


def _bowl(forward, params, batch, key):
    """Every row pulls each parameter its own way."""
    pulls = sum(
        jnp.sum(batch.weights[:, i].mean() * jnp.sin(leaf + i)) for i, leaf in enumerate(jax.tree.leaves(params))
    )
    return pulls * len(batch.weights), batch.weights[:, -1].sum(), Rows(batch.weights[:, 0], batch.weights[:, 1])


@pytest.mark.parametrize("name", ["adafactor", "lamb", "muon", "schedule_free"])
def test_a_step_of_other_optimizers_is_that_of_one_device(tiny, name):
    """Those that look at more than one number at a time, or keep weights of their own; and averages of weights."""
    config = tiny(optimizer__name=name, optimizer__clip=0.5, train__ema=0.0 if name == "schedule_free" else 0.5)
    optimizer = build.optimizer(config.optimizer, lambda step: 0.1)
    step = make_step(Objective(None, None, _bowl), None, optimizer, lambda step: 0.1, 0, config.train)
    generator = np.random.default_rng(0)
    is_shape = lambda node: isinstance(node, tuple)
    params = jax.tree.map(lambda shape: jnp.asarray(generator.normal(size=shape), "float32"), LEAVES, is_leaf=is_shape)
    batch = Batch(*[generator.normal(size=(8, 6)).astype("float32")] * 5, np.zeros(8, "int32"))
    after = []
    for data, fsdp in ((1, 1), (4, 2)):
        mesh = Mesh(np.asarray(jax.devices()[: data * fsdp]).reshape(data, fsdp), AXES)
        state = compiling.initialise(lambda: states.create(params, optimizer, config.train.ema > 0), mesh)
        compiled = compiling.compile_step(step, state, mesh)
        for _ in range(2):
            state, _ = compiled(state, jax.device_put(batch, rules.rows(mesh)))
        after.append(state)
    assert after[1].params["embed"]["embedding"].addressable_shards[0].data.shape == (16, 3)
    for path, one, other in zip(trees.paths(after[0]), *map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=path)


def test_state_before_the_first_step_does_not_depend_on_the_mesh(tiny, assembled):
    config = tiny()
    create, _ = assembled(config)
    whole = compiling.initialise(create, Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), AXES))
    split = compiling.initialise(create, Mesh(np.asarray(jax.devices()).reshape(1, 8), AXES))
    assert split.params["embed"]["embedding"].addressable_shards[0].data.shape == (64, 3)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
