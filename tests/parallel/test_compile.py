"""The same losses on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import trees
from lm.batch import Batch
from lm.objective.base import Objective
from lm.objective.losses import Rows
from lm.optim import build
from lm.parallel import compile as compiling
from lm.parallel import rules
from lm.parallel.mesh import make_mesh
from lm.train import state as states
from lm.train.step import make_step

# What differs in how it is laid out; the paths of every family are those of tests/parallel/test_rules.py.
CASES = {
    "gpt2": {"family": "gpt2"},
    "llama": {"family": "llama"},
    "options": {
        "positions": "relative",
        "value_embeddings": 2,
        "residual_scalars": True,
        "qk_norm": True,
        "kv_heads": 4,
    },
    "encoder": {"family": "bert", "layers": 2, "unroll": 1},
    "both": {"family": "t5", "layers": 2, "encoder_layers": 3, "unroll": 1, "tied": False},
    "experts, sorted": {"family": "mixtral", "layers": 2, "unroll": 1},
    "experts with places": {
        "family": "mixtral",
        "layers": 2,
        "unroll": 1,
        "bias": True,
        "dispatch": "capacity",
        "expert_capacity": 1.0,
    },
}


@pytest.fixture(scope="module")
def single(request, tiny, train, mesh_of):
    """Return the model's overrides, and the metrics on one device."""
    mesh = mesh_of(data=1)
    case = CASES[request.param]
    model = {f"model.{name}": value for name, value in case.items()}
    found, _, is_donated = train(tiny(**model), mesh)
    assert is_donated and len({float(metrics["loss"]) for metrics in found}) == 5
    if "experts" in request.param:
        has_overflow = case.get("dispatch") == "capacity"
        assert all(metrics["objective"] > metrics["loss"] for metrics in found)
        assert all((metrics["experts/dropped"] > 0) == has_overflow for metrics in found)
    return model, found


@pytest.mark.parametrize(
    ("single", "data", "fsdp"),
    [("gpt2", 8, 1), ("gpt2", 1, 8), *((case, 2, 4) for case in CASES)],
    indirect=["single"],
)
def test_metrics_are_those_of_one_device(tiny, train, single, data, fsdp):
    model, expected = single
    config = tiny(**model, parallel__mesh__data=data, parallel__mesh__fsdp=fsdp)
    mesh = make_mesh(config.parallel.mesh, config.data.batch_size, config.train.accumulate)
    found, state, is_donated = train(config, mesh)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-5 if name == "loss" else 1e-4, err_msg=name)
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
def test_a_step_of_other_optimizers_is_that_of_one_device(tiny, mesh_of, name):
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
        mesh = mesh_of(data=data, fsdp=fsdp)
        state = compiling.initialise(lambda: states.create(params, optimizer, config.train.ema > 0), mesh)
        compiled = compiling.compile_step(step, state, mesh)
        for _ in range(2):
            state, _ = compiled(state, jax.device_put(batch, rules.rows(mesh)))
        after.append(state)
    assert after[1].params["embed"]["embedding"].addressable_shards[0].data.shape == (16, 3)
    for path, one, other in zip(trees.paths(after[0]), *map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=path)


def test_state_before_the_first_step_does_not_depend_on_the_mesh(tiny, assembled, mesh_of):
    config = tiny()
    create, _ = assembled(config)
    whole = compiling.initialise(create, mesh_of(data=1))
    split = compiling.initialise(create, mesh_of(fsdp=8))
    assert split.params["embed"]["embedding"].addressable_shards[0].data.shape == (64, 3)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_a_state_from_parameters_that_there_are_lies_over_the_mesh_and_takes_them(tiny, mesh_of):
    mesh = mesh_of(data=2, fsdp=2)
    values = {"decoder": {"block": {"query": {"kernel": np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)}}}}
    optimizer = build.optimizer(tiny().optimizer, lambda step: 0.1)
    given = jax.device_put(values, rules.shardings(values, mesh))
    state = compiling.continued(lambda params: states.create(params, optimizer, is_averaged=True), given, mesh)
    jax.tree.map(np.testing.assert_array_equal, state.params, values)
    jax.tree.map(np.testing.assert_array_equal, state.ema, values)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    wanted = rules.shardings(jax.eval_shape(lambda: state), mesh)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == wanted
    assert state.params["decoder"]["block"]["query"]["kernel"].addressable_shards[0].data.shape == (2, 3, 5)
