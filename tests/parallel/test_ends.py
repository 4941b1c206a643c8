"""Real processes whose run ends and goes on: with other devices, asked by a signal to one, after the death of one."""

import os
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from lm import checkpoint, workdir

pytestmark = pytest.mark.faults


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
