"""Files are replaced whole or not at all; one process at a time has a lock, and a dead one has none."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lm import workdir
from lm.refusal import Refusal

HOLD = """
import sys, time
from pathlib import Path
from lm import workdir
with workdir.lock(Path(sys.argv[1]), "the workdir"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(path):
    """Have another process hold the lock while the block runs."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def left_behind(path, age, **changes):
    """Write a lock file as its owner left it `age` seconds ago."""
    path.write_text(json.dumps(workdir._owner() | {"token": "7"} | changes))
    os.utime(path, (time.time() - age,) * 2)


def test_write_replaces_whole_files_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    workdir.write_json(path, {"é": [3, 5]})
    workdir.write_json(path, {"é": [3]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [3]}
    assert os.listdir(path.parent) == ["b.json"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "run.json"
    workdir.write(path, "old")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, function, die)
        with pytest.raises(KeyboardInterrupt):
            workdir.write(path, "new" * 997)
    assert path.read_text() == "old"
    workdir.write(path, "new")
    assert path.read_text() == "new"


def test_a_lock_refuses_a_second_process_and_is_free_afterwards(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as process:
        with (
            pytest.raises(Refusal, match=rf"^the run is in use by process {process.pid} on .*\.$"),
            workdir.lock(path, "the run"),
        ):
            pass
        assert path.exists()
    with workdir.lock(path, "the run"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_lock_refuses_its_own_process_too(tmp_path):
    path = tmp_path / "lock"
    with workdir.lock(path, "the run"):
        with pytest.raises(Refusal, match=str(os.getpid())), workdir.lock(path, "the run"):
            pass
        assert path.exists()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        begun = time.monotonic()
        with workdir.lock(path, "the run"):
            assert json.loads(path.read_text())["process"] == os.getpid()
        assert time.monotonic() - begun < 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("owner", "age", "is_free"),
    [
        ({"host": "elsewhere/1"}, 0, False),
        ({"host": "elsewhere/1"}, 1000, True),
        ({"process": 2**22 + 1}, 0, True),  # above the kernel's largest process id
        ({"process": os.getpid()}, 0, False),
        ({"process": os.getpid()}, 1000, True),  # another life of this number, in a container started again
        ({"process": os.getppid()}, 0, False),
        ({"process": os.getppid()}, 1000, True),  # the number went to another process
    ],
)
def test_a_lock_without_a_live_owner_is_taken_over(tmp_path, owner, age, is_free):
    path = tmp_path / "lock"
    left_behind(path, age, **owner)
    if is_free:
        with workdir.lock(path, "the run"):
            assert json.loads(path.read_text())["token"] != "7"
        assert not path.exists()
    else:
        with pytest.raises(Refusal, match="in use"), workdir.lock(path, "the run"):
            pass
        assert json.loads(path.read_text())["token"] == "7"


@pytest.mark.parametrize(("age", "is_free"), [(0, False), (1000, True)])
def test_a_lock_that_its_owner_had_no_time_to_write_counts_as_stale_by_age_alone(tmp_path, age, is_free):
    path = tmp_path / "lock"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    with contextlib.nullcontext() if is_free else pytest.raises(Refusal), workdir.lock(path, "the run"):
        assert path.stat().st_size > 0


def test_a_held_lock_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "_HEARTBEAT", 0.01)
    path = tmp_path / "lock"
    with workdir.lock(path, "the run"):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_a_waiting_process_says_for_whom_and_goes_on_when_it_may(tmp_path):
    path = tmp_path / "lock"
    said = []
    with holder(path) as process:

        def wait(words):
            said.append(words)
            process.kill()
            process.wait()

        with workdir.lock(path, "the store", wait=wait):
            pass
    assert len(said) == 1 and said[0].startswith(f"the store is in use by process {process.pid} on ")
