"""Real processes that train one model, its mesh across them by every axis: the losses are those of one device."""

import functools

import numpy as np
import pytest

from lm import checkpoint, workdir

pytestmark = pytest.mark.faults

EXPERTS = {"family": "mixtral", "experts": 4, "bias": True, "dispatch": "capacity", "expert_capacity": 1.0}
IS_LOSS = np.r_[np.ones(20, bool), np.zeros(20, bool), np.ones(2, bool)]  # the others are norms of gradients
CASES = {"decoder": {"family": "llama"}, "both": {"family": "t5", "encoder_layers": 2}, "experts": EXPERTS}


def fields(case, **sizes):
    """Return a case's config values, on a mesh of these axes."""
    model = {f"model.{name}": value for name, value in CASES[case].items()}
    goal = {"objective.name": "span"} if case == "both" else {}
    return model | goal | {"parallel.mesh.fsdp": 1} | {f"parallel.mesh.{axis}": size for axis, size in sizes.items()}


@pytest.fixture(scope="module")
def single(runs):
    """Return a function: a case → the losses of its run of one process with one device."""

    @functools.cache
    def losses(case):
        name = f"{case}-one"
        runs.end(name, runs.start(name, 1, 1, **fields(case)))
        return runs.losses(name)

    return losses


@pytest.mark.parametrize(
    ("case", "count", "devices", "sizes"),
    [
        ("decoder", 2, 1, {"tensor": 2}),
        ("decoder", 2, 1, {"sequence": 2}),
        ("decoder", 4, 1, {"sequence": 2, "tensor": 2}),
        ("both", 2, 2, {"fsdp": 2, "tensor": 2}),
        ("both", 2, 1, {"slice": 2}),
        ("both", 4, 1, {"slice": 2, "fsdp": 2}),
        ("experts", 2, 2, {"expert": 2, "tensor": 2}),
        ("experts", 4, 1, {"data": 2, "expert": 2}),
    ],
    ids=lambda value: "-".join(f"{axis}{size}" for axis, size in value.items()) if isinstance(value, dict) else value,
)
def test_losses_are_those_of_one_device(runs, single, case, count, devices, sizes):
    """A mesh's outermost axis lies across processes; of processes of one device each every axis does."""
    expected = single(case)
    name = f"{case}-{count}-{'-'.join(sizes)}"
    runs.end(name, runs.start(name, count, devices, **fields(case, **sizes)))
    found = runs.losses(name)
    np.testing.assert_allclose(found[IS_LOSS], expected[IS_LOSS], rtol=1e-5)
    np.testing.assert_allclose(found[~IS_LOSS], expected[~IS_LOSS], rtol=1e-3)
    assert len(set(found[:20])) == 20
    said = [(runs.folder / run / workdir.SAMPLES).read_text(encoding="utf-8") for run in (name, f"{case}-one")]
    assert said[0] == said[1]


def test_an_object_store_is_a_workdir_for_all_of_them(runs, straight, far):
    """Each process writes its part of the arrays there; the store of tokens is sent by one and fetched by the other."""
    runs.elsewhere["far"] = far / "run"
    shared = {"parallel.mesh.fsdp": 2, "data.store": str(far / "store")}
    runs.end("far", runs.start("far", 2, 1, **shared, **{"train.steps": 13}))
    assert checkpoint.steps(far / "run" / workdir.CHECKPOINTS) == [7, 13]
    said = runs.end("far", runs.start("far", 4, 1, **shared | {"parallel.mesh.fsdp": 4}))
    assert "resuming after step 13" in said
    found = runs.losses("far")
    np.testing.assert_allclose(found[IS_LOSS], straight[IS_LOSS], rtol=1e-5)
    np.testing.assert_allclose(found[~IS_LOSS], straight[~IS_LOSS], rtol=1e-3)
