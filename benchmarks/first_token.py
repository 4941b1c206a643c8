"""How long it takes from the start of `python -m lm.generate` to the first character of its text: real processes.

    python benchmarks/first_token.py --from=runs/quickstart

Once with nothing compiled, then with what the first process has compiled (the median of --times). Where the time goes
is measured by processes that stop on the way: after Python, after JAX's import, after ours, after the model is open.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

FROM = flags.DEFINE_string("from", None, "PLACE of the model", required=True)
PROMPT = flags.DEFINE_string("prompt", "def main", "what is continued")
TIMES = flags.DEFINE_integer("times", 5, "processes of which the median is taken", lower_bound=1)

STAGES = {
    "python": "pass",
    "jax": "import jax",
    "imports": "import lm.command; import lm.generate.generator; import lm.generate.defaults; import lm.weights.place",
    "model": "from lm.weights.place import open_place; open_place({place!r})",
    "ready": "from lm.generate.generator import Generator; import jax; "
    "jax.block_until_ready(Generator(open_place({place!r})).ready.params)",
}


def _seconds(arguments: list[str], folder: str) -> tuple[float, float]:
    """Return the seconds until a process writes its first character or ends, and what it took of the processor's."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    )
    is_written = process.stdout.read(1)
    seconds, worked = time.monotonic() - begun, _worked(process.pid) if is_written else 0.0
    process.stdout.close()
    usage = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return seconds, worked or usage.ru_utime + usage.ru_stime


def _median(arguments: list[str], folder: str) -> list[float]:
    """Return the medians of several processes."""
    return np.median([_seconds(arguments, folder) for _ in range(TIMES.value)], axis=0).tolist()


def _worked(number: int) -> float:
    """Return the processor's seconds that a process has had."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> None:
    """Measure, print a table and one JSON object."""
    door = ["-m", "lm.generate", f"--from={FROM.value}", f"--prompt={PROMPT.value}"]
    with tempfile.TemporaryDirectory() as folder:
        found = {"cold": _seconds(door, folder)}
        done = ""
        for name, lines in STAGES.items():
            done = f"{done}{lines.format(place=FROM.value)}\n"
            found[name] = _median(["-c", done], folder)
        found["warm"] = _median(door, folder)
    for name, (seconds, worked) in found.items():
        print(f"{name:8} {seconds:6.2f} s, of the processor's {worked:6.2f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    app.run(main)
