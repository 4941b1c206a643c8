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

from lm import lock, storage
from lm.refusal import Refusal

HOLD = """
import sys, time
from lm import lock, storage
lock._HEARTBEAT = float(sys.argv[2])
with lock.held(storage.place(sys.argv[1]), "the workdir", print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["near", "far"])
def path(request, tmp_path):
    """Return the path of a lock, on a disk and on an object store."""
    return (tmp_path if request.param == "near" else request.getfixturevalue("far")) / "lock"


@pytest.fixture
def hasty(monkeypatch):
    """Look after shorter times."""
    for name, seconds in (("_STALE", 0.5), ("_WATCH", 0.5), ("_LOOK", 0.01)):
        monkeypatch.setattr(lock, name, seconds)


def quiet(words):
    """Say nothing."""


def owner(path):
    """Return who has a lock."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def holder(path, heartbeat=5.0):
    """Have another process hold the lock while the block runs."""
    line = [sys.executable, "-c", HOLD, str(path), str(heartbeat)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def left_behind(path, age, **changes):
    """Write a lock as its owner left it `age` seconds ago."""
    text = json.dumps(lock._owner() | {"token": "7", "beat": time.time() - age} | changes)
    if storage.is_far(path):
        storage.write(path, text.encode())
    else:
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)


def test_a_lock_refuses_a_second_process_and_is_free_afterwards(path):
    with holder(path) as process:
        with (
            pytest.raises(Refusal, match=rf"^the run is in use by process {process.pid} on .*\.$"),
            lock.held(path, "the run", pytest.fail),
        ):
            pass
        assert path.exists()
    with lock.held(path, "the run", pytest.fail):
        assert owner(path)["process"] == os.getpid()
    assert not path.exists()


def test_a_lock_refuses_its_own_process_too(path):
    with lock.held(path, "the run", quiet):
        with pytest.raises(Refusal, match=str(os.getpid())), lock.held(path, "the run", quiet):
            pass
        assert path.exists()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(path):
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.exists()
        begun = time.monotonic()
        with lock.held(path, "the run", quiet):
            assert owner(path)["process"] == os.getpid()
        assert time.monotonic() - begun < 1
    assert not path.exists() and list(path.parent.glob("*")) == []


@pytest.mark.parametrize(
    ("changes", "age", "is_free"),
    [
        ({"process": 2**22 + 1}, 0, True),  # above the kernel's largest process id
        ({"process": os.getpid()}, 0, False),
        ({"process": os.getpid()}, 1000, True),  # another life of this number, in a container started again
        ({"process": os.getppid()}, 0, False),
        ({"process": os.getppid()}, 1000, True),  # the number went to another process
    ],
)
def test_a_lock_without_a_live_owner_here_is_taken_over(path, changes, age, is_free):
    left_behind(path, age, **changes)
    with contextlib.nullcontext() if is_free else pytest.raises(Refusal), lock.held(path, "the run", quiet):
        assert owner(path)["token"] != "7"
    assert path.exists() != is_free


@pytest.mark.parametrize("age", [0, 1000, -1000])
def test_on_another_host_an_owner_that_gives_no_sign_is_dead_whatever_its_clock(path, hasty, age):
    left_behind(path, min(age, 0.4), host="elsewhere/1", process=7)
    said, begun = [], time.monotonic()
    with lock.held(path, "the run", said.append):
        assert time.monotonic() - begun > 0.4 and owner(path)["token"] != "7"
    assert [words.partition(": looking for")[0] for words in said] == [
        "the run is in use by process 7 on elsewhere, or was"
    ]


@pytest.mark.parametrize("age", [0, 1000])
def test_on_another_host_an_owner_that_gives_a_sign_is_not(path, hasty, age):
    left_behind(path, age, host="elsewhere/1")
    live = lambda words: left_behind(path, age - 0.01, host="elsewhere/1")
    with pytest.raises(Refusal, match="on elsewhere; wait for it to end"), lock.held(path, "the run", live):
        pass
    assert owner(path)["token"] == "7"


@pytest.mark.parametrize("age", [0, 1000])
def test_a_lock_that_its_owner_had_no_time_to_write_counts_by_age_alone(tmp_path, hasty, age):
    path = tmp_path / "lock"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    with lock.held(path, "the run", quiet):
        assert path.stat().st_size > 0


def test_a_held_lock_gives_signs_of_life(path, monkeypatch):
    monkeypatch.setattr(lock, "_HEARTBEAT", 0.01)
    sign = lambda: storage.facts(path) if storage.is_far(path) else path.stat().st_mtime_ns
    with lock.held(path, "the run", quiet):
        for _ in range(2):
            before, deadline = sign(), time.monotonic() + 5
            while sign() == before:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_a_waiting_process_says_for_whom_and_goes_on_when_it_may(path):
    said = []
    with holder(path) as process:

        def wait(words):
            said.append(words)
            process.kill()
            process.wait()

        with lock.held(path, "the store", wait, is_patient=True):
            pass
    assert len(said) == 1 and said[0].startswith(f"waiting: the store is in use by process {process.pid} on ")


def test_of_many_that_want_a_lock_one_has_it_at_a_time(path, hasty):
    held, most = [], []

    def work():
        with lock.held(path, "it", quiet, is_patient=True):
            held.append(1)
            most.append(len(held))
            time.sleep(0.01)
            held.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_an_owner_whose_lock_was_taken_over_ends(path):
    with holder(path, heartbeat=0.05) as process:
        left_behind(path, 0)
        _, words = process.communicate(timeout=20)
    assert process.returncode == 1 and "the workdir was taken over by another process" in words
    assert owner(path)["token"] == "7"
