"""The launcher: what it hands to its processes, whose words it shows, how it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# says its arguments; then, by its number, ends or waits for a signal
CHILD = """
import os, signal, sys, time
index = int(sys.argv[-1].partition("=")[2])
def take(number, frame):
    print("taken", flush=True)
    sys.exit(40 + index)
signal.signal(signal.SIGTERM, take)
print(" ".join(sys.argv[1:]), os.environ["JAX_NUM_CPU_DEVICES"], flush=True)
ends = sys.argv[1].split(",")[index]
if ends == "wait":
    time.sleep(60)
sys.exit(int(ends))
"""


def launched(ends, *flags):
    """Start the launcher of children that end so."""
    count = len(ends.split(","))
    line = [sys.executable, "-m", "lm.parallel.launch", f"--processes={count}", "--devices=3", *flags, "--"]
    return subprocess.Popen(
        [*line, sys.executable, "-c", CHILD, ends],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("ends", "status"), [("0,0,0", 0), ("0,7", 7), ("5,0", 5)])
def test_status_and_words(ends, status):
    process = launched(ends)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status
    count = ends.count(",") + 1
    words, *address = out.split()[:2]
    assert words == ends and address[0].startswith("--coordinator=localhost:")
    assert f"--processes={count} --process=0 3" in out and "--process=1" not in out
    for index in range(1, count):
        assert f"[{index}] {ends} {address[0]} --processes={count} --process={index} 3" in errors


@pytest.mark.parametrize(("flags", "taken"), [((), {40, 41}), (("--hand_to=1",), {41})], ids=str)
def test_signals_are_handed_on(flags, taken):
    process = launched("wait,wait" if not flags else "0,wait", *flags)
    for line in process.stderr:
        if line.startswith("[1]"):
            break
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode in taken
    assert ("taken" in out) == (40 in taken) and "[1] taken" in errors


def test_mistakes():
    for flags, words in ((("--hand_to=2",), "--hand_to is 2"), (("--processes=0",), "processes")):
        process = launched("0,0", *flags)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2 and errors.startswith("error: ") and words in errors
    line = [sys.executable, "-m", "lm.parallel.launch"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "command to start" in done.stderr
    done = subprocess.run([*line, "--", "--config=configs/quickstart.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "is no command: write it behind --" in done.stderr
    done = subprocess.run([*line, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--hand_to" in done.stdout
