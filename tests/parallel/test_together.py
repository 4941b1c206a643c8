"""Real processes that train one model: every axis across them, other devices, an end asked of one, one that dies."""

import os
import re
import shutil
import signal
import sys
import time

import functools

import numpy as np
import pytest

from lm import checkpoint, workdir

pytestmark = pytest.mark.faults

EXPERTS = {"family": "mixtral", "experts": 4, "bias": True, "dispatch": "capacity", "expert_capacity": 1.0}
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
    is_loss = np.r_[np.ones(20, bool), np.zeros(20, bool), np.ones(2, bool)]
    np.testing.assert_allclose(found[is_loss], expected[is_loss], rtol=1e-5)
    np.testing.assert_allclose(found[~is_loss], expected[~is_loss], rtol=1e-3)
    assert len(set(found[:20])) == 20
    said = [(runs.folder / run / workdir.SAMPLES).read_text(encoding="utf-8") for run in (name, f"{case}-one")]
    assert said[0] == said[1]


def test_the_same_command_goes_on_with_other_devices(runs, straight):
    """Each attempt is taken back to a step, as if it had been killed there, and the next one has other devices."""
    folder = runs.folder / "elastic"
    for stop, (count, devices) in zip((4, 8, 12, 16, 20), ((1, 8), (1, 4), (1, 1), (2, 2), (1, 8)), strict=True):
        process = runs.start("elastic", count, devices, train__checkpoint_every=4, train__keep_latest=5)
        words = runs.end("elastic", process)
        assert f"{count * devices} × cpu" in words and (stop == 4 or f"resuming after step {stop - 4}" in words)
        np.testing.assert_allclose(runs.losses("elastic"), straight, rtol=1e-5)
        for step in checkpoint.steps(folder / workdir.CHECKPOINTS):
            if step > stop:
                shutil.rmtree(folder / workdir.CHECKPOINTS / str(step))


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_a_signal_to_one_process_stops_all_at_the_same_step(runs, straight, until, count, devices):
    name = f"stopped-{count}"
    found = lambda: checkpoint.steps(runs.folder / name / workdir.CHECKPOINTS)
    more = {"launch": [f"--hand_to={count - 1}"], "train__checkpoint_every": 3, "parallel__mesh__data": 2}
    begin = lambda: runs.start(name, count, devices, **more)
    process = begin()
    until(lambda: found() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    words = runs.end(name, process, 128 + signal.SIGTERM)
    (step,) = map(int, re.findall(r"stopped by SIGTERM after step (\d+);", words))
    assert 3 <= step < 20 and found()[-1] == step
    assert statuses(words) == [128 + signal.SIGTERM] * count
    assert not (runs.folder / name / workdir.LOCK).exists()
    words = runs.end(name, begin())
    assert f"resuming after step {step}" in words
    np.testing.assert_allclose(runs.losses(name), straight, rtol=1e-5)


def statuses(words):
    """Return the exit statuses of all processes, as the launcher tells them."""
    (told,) = re.findall("^statuses: (.*)$", words, re.MULTILINE)
    return [int(status) for status in re.findall(r"gave (\d+)", told)]


@pytest.mark.parametrize(("count", "killed"), [(2, 1), (2, 0), (4, 2)])
def test_a_process_that_is_killed_ends_all(runs, until, count, killed):
    name = f"killed-{count}-{killed}"
    process = runs.start(name, count, 1, train__checkpoint_every=1)
    found = lambda: checkpoint.steps(runs.folder / name / workdir.CHECKPOINTS)
    until(lambda: found() or process.poll() is not None)
    begun = time.monotonic()
    os.kill(int(re.search(rf"{killed} is (\d+)", runs.said(name))[1]), signal.SIGKILL)
    words = runs.end(name, process, 128 + signal.SIGKILL)
    assert time.monotonic() - begun < 20 and "the others do not end" not in words
    given = statuses(words)
    assert given.pop(killed) == 128 + signal.SIGKILL
    if killed:
        assert given == [1] * (count - 1) and words.count("failed in what it computes with others") == count - 1
        assert "Traceback" not in words
    else:  # the service that all talk through is gone, upon which JAX aborts them
        assert given[0] in (1, 128 + signal.SIGABRT)
        assert re.search(r"^\[1\] (error: process 1 |F.* Terminating process)", words, re.MULTILINE)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_process_that_is_silent_is_given_up(runs, until, frozen):
    name = f"silent-{frozen}"
    (runs.folder / "silent.py").write_text(SILENT, encoding="utf-8")
    process = runs.launch(name, [sys.executable, str(runs.folder / "silent.py")], 2, 1)
    until(lambda: runs.said(name).count("together") == 2)
    number = int(re.search(rf"{frozen} is (\d+)", runs.said(name))[1])
    os.kill(number, signal.SIGSTOP)
    until(lambda: "Terminating process" in runs.said(name))
    os.kill(number, signal.SIGKILL)
    process.wait(timeout=100)
    assert statuses(runs.said(name))[1 - frozen] == 128 + signal.SIGABRT


SILENT = """
import sys, time
from lm.parallel import processes

processes._SILENT = 5
given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
together = processes.join(processes.named(given["coordinator"], int(given["processes"]), int(given["process"])))
print("together", flush=True)
time.sleep(100)
"""
