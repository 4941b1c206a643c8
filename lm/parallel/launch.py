"""Start a command as several processes of one run, on this machine's CPU: to try what a pod will do.

    python -m lm.parallel.launch --processes=2 --devices=2 -- \\
        python -m lm.train --config=configs/quickstart.py --workdir=runs/two

The command is given --coordinator, --processes and --process. Process 0 speaks as it is, the others with their number
before each line. SIGTERM and Ctrl-C are handed on. The first process that fails ends all, and gives its exit status;
those of all are told then.
"""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from absl import flags

from lm import command
from lm.refusal import Refusal

PROCESSES = flags.DEFINE_integer("processes", 2, "how many processes", lower_bound=1)
DEVICES = flags.DEFINE_integer("devices", 1, "CPU devices of each", lower_bound=1)
HAND_TO = flags.DEFINE_integer("hand_to", -1, "the process that signals are handed to; -1: all", lower_bound=-1)

_LOOK = 0.1  # seconds
_GRACE = 30.0  # seconds that the others have to end by themselves when one has failed


def main(*line: str) -> int:
    """Start all, wait for all; return the first status that is not 0."""
    count = PROCESSES.value
    if HAND_TO.value >= count:
        raise Refusal(f"--hand_to is {HAND_TO.value}: it must be below --processes ({count}).")
    if line[0].startswith("-"):
        raise Refusal(f"{line[0]!r} is no command: write it behind --, as in -- python -m lm.train --config=…")
    address = f"localhost:{_free_port()}"
    running = [_start(line, address, index, count) for index in range(count)]
    names = ", ".join(f"{index} is {process.pid}" for index, process in enumerate(running))
    print(f"processes: {names}", file=sys.stderr, flush=True)

    def hand_on(number: int, frame: object) -> None:
        for process in running if HAND_TO.value == -1 else [running[HAND_TO.value]]:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    listeners = [threading.Thread(target=_relay, args=(process, index)) for index, process in enumerate(running[1:], 1)]
    for thread in listeners:
        thread.start()
    status = _ended(running)
    for thread in listeners:
        thread.join()
    if status:
        told = ", ".join(f"{index} gave {_status(process)}" for index, process in enumerate(running))
        print(f"statuses: {told}", file=sys.stderr, flush=True)
    return status


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _start(line: Sequence[str], address: str, index: int, count: int) -> subprocess.Popen:
    """Start one process, in a session of its own, so that a terminal's Ctrl-C comes to us alone."""
    settings = ["env", "JAX_PLATFORMS=cpu", f"JAX_NUM_CPU_DEVICES={DEVICES.value}"]
    named = [f"--coordinator={address}", f"--processes={count}", f"--process={index}"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if index else {}
    return subprocess.Popen([*settings, *line, *named], start_new_session=True, **output)


def _relay(process: subprocess.Popen, index: int) -> None:
    for words in process.stdout:
        print(f"[{index}] {words}", end="", file=sys.stderr, flush=True)


def _ended(running: Sequence[subprocess.Popen]) -> int:
    """Wait for all; return 0, or the status of the one that failed first."""
    failed, limit = None, float("inf")
    while None in [process.poll() for process in running]:
        if failed is None and (failed := _first_failed(running)) is not None:
            limit = time.monotonic() + _GRACE
        if time.monotonic() > limit:
            print(f"error: process {failed} has failed; the others do not end, and are killed.", file=sys.stderr)
            for process in running:
                process.kill()
            limit = float("inf")
        time.sleep(_LOOK)
    failed = _first_failed(running) if failed is None else failed
    return 0 if failed is None else _status(running[failed])


def _status(process: subprocess.Popen) -> int:
    """Return the exit status of a process that has ended, 128 + n for signal n."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _first_failed(running: Sequence[subprocess.Popen]) -> int | None:
    """Return the process that has failed; of several one that was killed, as it took the others with it."""
    failed = [(process.returncode > 0, index) for index, process in enumerate(running) if process.returncode]
    return min(failed)[1] if failed else None


if __name__ == "__main__":
    command.run(main, __doc__, takes="command to start")
