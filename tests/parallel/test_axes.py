"""Every axis of a mesh, alone and with others: twenty steps are those of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.costs.compiled import collectives
from lm.parallel import compile as compiling

STEPS, LENGTHS = 20, {"length": 12, "encoder_length": 8}
EXPERTS = {"family": "mixtral", "layers": 2, "unroll": 1, "experts": 4}
CASES = {
    "decoder": {"family": "llama", "layers": 2, "unroll": 1},
    "both": {"family": "t5", "layers": 2, "encoder_layers": 2, "unroll": 1},
    "experts, sorted": EXPERTS,
    "experts with places": EXPERTS | {"bias": True, "dispatch": "capacity", "expert_capacity": 1.0},
}


@pytest.fixture(scope="module")
def single_of(tiny, train, mesh_of):
    """Return a function: a case → the model's overrides, and the metrics on one device."""

    @functools.cache
    def made(case):
        model = {f"model.{name}": value for name, value in CASES[case].items()} | {"model.context": 12}
        return model, train(tiny(**model), mesh_of(data=1), STEPS, **LENGTHS)[0]

    return made


@pytest.fixture
def single(request, single_of):
    """Return what single_of does of the case asked for."""
    return single_of(request.param)


@pytest.mark.parametrize(
    ("single", "sizes", "accumulate"),
    [
        ("decoder", {"data": 2, "sequence": 4}, 1),
        ("decoder", {"slice": 2, "fsdp": 2, "tensor": 2}, 1),
        ("decoder", {"slice": 2, "data": 2, "sequence": 2}, 2),
        ("decoder", {"fsdp": 2, "sequence": 2, "tensor": 2}, 1),
        ("both", {"fsdp": 2, "sequence": 2, "tensor": 2}, 1),
        ("both", {"data": 2, "fsdp": 2, "tensor": 2}, 2),
        ("experts, sorted", {"fsdp": 2, "expert": 2, "tensor": 2}, 1),
        ("experts with places", {"expert": 4, "tensor": 2}, 1),
        ("experts with places", {"fsdp": 2, "expert": 2, "sequence": 2}, 1),
        ("experts with places", {"slice": 2, "expert": 2}, 2),
    ],
    indirect=["single"],
    ids=lambda value: "-".join(f"{axis}{size}" for axis, size in value.items()) if isinstance(value, dict) else None,
)
def test_steps_are_those_of_one_device(tiny, train, mesh_of, single, sizes, accumulate):
    model, expected = single
    config = tiny(**model, train__accumulate=accumulate)
    found, state, is_donated = train(config, mesh_of(**sizes), STEPS, **LENGTHS)
    assert is_donated and len({float(metrics["loss"]) for metrics in found}) == STEPS
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-5)
        np.testing.assert_allclose(one["grad_norm"], other["grad_norm"], rtol=1e-3)
    block = state.params["decoder"]["block"]
    share = lambda leaf: leaf.size // leaf.addressable_shards[0].data.size
    split = sizes.get("fsdp", 1) * sizes.get("tensor", 1)
    assert share(block["attention"]["query"]["kernel"]) == share(state.params["embed"]["embedding"]) == split
    if "experts" in block["feedforward"]:
        assert share(block["feedforward"]["experts"]["in"]["kernel"]) == split * sizes["expert"]


@pytest.mark.parametrize(
    ("single", "accumulate"), [("decoder", 2), ("both", 1), ("experts with places", 1)], indirect=["single"]
)
def test_pmap_is_jit(tiny, train, mesh_of, single, accumulate):
    model, expected = single
    config = tiny(**model, parallel__compile="pmap", train__accumulate=accumulate)
    found, state, is_donated = train(config, mesh_of(data=4), STEPS, **LENGTHS)
    assert is_donated and all(len(leaf.addressable_shards) == 4 for leaf in jax.tree.leaves(state))
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-5 if name == "loss" else 1e-3, err_msg=name)


def test_devices_under_pmap_drop_each_their_own(tiny, train, mesh_of):
    """With dropout they are no longer one device's numbers, nor are two devices' masks alike."""
    losses = [
        float(train(tiny(model__dropout=0.5, parallel__compile="pmap"), mesh_of(data=count), 1)[0][0]["loss"])
        for count in (1, 2)
    ]
    assert losses[0] != losses[1]


@pytest.fixture(scope="module")
def collectives_of(tiny, assembled, random_batch):
    """Return a function: a mesh and fields of the config → a step's collectives."""

    def compiled(mesh, **fields):
        fields = {"model.layers": 2, "model.unroll": 1, "model.context": 12} | fields
        projections = compiling.settled(tiny(**fields).model, mesh).projections
        create, step = assembled(tiny(**fields, model__projections=projections), mesh)
        batch = jax.tree.map(jnp.asarray, random_batch(0, **LENGTHS))
        state, batch = jax.eval_shape(create), jax.eval_shape(lambda: batch)
        return collectives(compiling.compile_step(step, state, mesh).lower(state, batch).compile().as_text())

    return compiled


@pytest.mark.parametrize(
    ("case", "sizes", "kinds"),
    [
        ({"family": "gpt2"}, {"data": 4}, {"all-reduce"}),
        ({"family": "gpt2"}, {"tensor": 2}, {"all-reduce"}),
        ({"family": "llama"}, {"tensor": 2}, {"all-reduce"}),
        ({"family": "llama"}, {"sequence": 2}, {"all-reduce", "all-gather"}),
        ({"family": "llama"}, {"fsdp": 2}, {"all-reduce", "all-gather"}),
        (CASES["experts with places"], {"expert": 4}, {"all-reduce", "all-to-all"}),
    ],
    ids=["rows", "heads with biases", "heads", "tokens", "parameters", "experts"],
)
def test_devices_tell_each_other_no_more_than_they_must(collectives_of, mesh_of, case, sizes, kinds):
    assert set(collectives_of(mesh_of(**sizes), **{f"model.{name}": value for name, value in case.items()})) == kinds


def test_copies_of_the_parameters_add_their_gradients_once_a_step(collectives_of, mesh_of):
    """However many micro-batches there are; unless what is drawn for a row would depend on the mesh."""
    found = lambda **fields: collectives_of(mesh_of(data=2), **fields)["all-reduce"]
    once = found(train__accumulate=4)
    assert once.in_loops == 0 and once.runs == found(train__accumulate=2).runs
    assert found(train__accumulate=4, model__dropout=0.1).runs > 4 * once.runs


def test_devices_add_the_gradient_of_the_head_once_for_all_chunks_of_the_loss(collectives_of, mesh_of):
    runs = [collectives_of(mesh_of(fsdp=2), objective__chunk_tokens=tokens)["all-reduce"].runs for tokens in (48, 24)]
    assert runs[0] == runs[1]
