"""One process at a time has a lock, and a dead one has none; on a disk and on an object store."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lm import lock
from lm.refusal import Refusal

HOLD = """
import sys, time
from pathlib import Path
from lm import lock
with lock.held(Path(sys.argv[1]), "the workdir"):
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
    path.write_text(json.dumps(lock._owner() | {"token": "7"} | changes))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lock_refuses_a_second_process_and_is_free_afterwards(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as process:
        with (
            pytest.raises(Refusal, match=rf"^the run is in use by process {process.pid} on .*\.$"),
            lock.held(path, "the run"),
        ):
            pass
        assert path.exists()
    with lock.held(path, "the run"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_a_lock_refuses_its_own_process_too(tmp_path):
    path = tmp_path / "lock"
    with lock.held(path, "the run"):
        with pytest.raises(Refusal, match=str(os.getpid())), lock.held(path, "the run"):
            pass
        assert path.exists()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    path = tmp_path / "lock"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        begun = time.monotonic()
        with lock.held(path, "the run"):
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
        with lock.held(path, "the run"):
            assert json.loads(path.read_text())["token"] != "7"
        assert not path.exists()
    else:
        with pytest.raises(Refusal, match="in use"), lock.held(path, "the run"):
            pass
        assert json.loads(path.read_text())["token"] == "7"


@pytest.mark.parametrize(("age", "is_free"), [(0, False), (1000, True)])
def test_a_lock_that_its_owner_had_no_time_to_write_counts_as_stale_by_age_alone(tmp_path, age, is_free):
    path = tmp_path / "lock"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    with contextlib.nullcontext() if is_free else pytest.raises(Refusal), lock.held(path, "the run"):
        assert path.stat().st_size > 0


def test_a_held_lock_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_HEARTBEAT", 0.01)
    path = tmp_path / "lock"
    with lock.held(path, "the run"):
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

        with lock.held(path, "the store", wait=wait):
            pass
    assert len(said) == 1 and said[0].startswith(f"the store is in use by process {process.pid} on ")


def test_a_far_lock_refuses_a_second_process_and_is_free_afterwards(far):
    path = far / "lock"
    with lock.held(path, "the run"):
        assert json.loads(path.read_text())["process"] == os.getpid()
        with (
            pytest.raises(Refusal, match=rf"^the run is in use by process {os.getpid()} on"),
            lock.held(path, "the run"),
        ):
            pass
    assert not path.exists()


def test_of_many_that_want_a_far_lock_one_has_it_at_a_time(far):
    held, most = [], []

    def work():
        with lock.held(far / "lock", "it", wait=lambda words: None):
            held.append(1)
            most.append(len(held))
            held.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


@pytest.mark.parametrize(
    ("owner", "age", "is_free"),
    [
        ({"host": "elsewhere/1"}, 0, False),
        ({"host": "elsewhere/1"}, 1000, True),
        ({"process": 2**22 + 1}, 0, True),
        ({"process": os.getpid()}, 0, False),
    ],
)
def test_a_far_lock_without_a_live_owner_is_taken_over(far, monkeypatch, owner, age, is_free):
    monkeypatch.setattr(lock, "_WATCH", 0.1)
    path = far / "lock"
    path.write_text(json.dumps(lock._owner() | {"token": "7", "beat": time.time() - age} | owner))
    with contextlib.nullcontext() if is_free else pytest.raises(Refusal), lock.held(path, "the run"):
        assert json.loads(path.read_text())["token"] != "7"
    assert path.exists() != is_free


def test_a_far_lock_whose_owners_clock_is_slow_is_not_taken(far, monkeypatch):
    monkeypatch.setattr(lock, "_WATCH", 0.5)
    monkeypatch.setattr(lock, "_HEARTBEAT", 0.05)
    clock = time.time
    monkeypatch.setattr(lock, "_owner", lambda: {"host": str(threading.get_ident()), "process": 1})
    with lock.held(far / "lock", "the run"):
        monkeypatch.setattr(time, "time", lambda: clock() + (1000 if threading.current_thread() is other else 0))
        refused = []

        def want():
            try:
                with lock.held(far / "lock", "the run"):
                    pass
            except Refusal as refusal:
                refused.append(str(refusal))

        other = threading.Thread(target=want)
        other.start()
        other.join()
    assert len(refused) == 1


@pytest.mark.parametrize("is_far", [False, True])
def test_an_owner_whose_lock_was_taken_over_ends(tmp_path, far, is_far):
    path = (far if is_far else tmp_path) / "lock"
    program = HOLD.replace("from lm import lock", "from lm import lock, storage\nlock._HEARTBEAT = 0.05").replace(
        "Path(sys.argv[1])", "storage.place(sys.argv[1])"
    )
    line = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        path.write_text(json.dumps({"token": "another's"}))
        _, words = process.communicate(timeout=20)
    assert process.returncode == 1 and "the workdir was taken over by another process" in words
    assert json.loads(path.read_text()) == {"token": "another's"}
