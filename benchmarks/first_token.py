"""How long it takes from the start of `python -m lm.generate` to the first character of its text: real processes.

    python benchmarks/first_token.py --from=runs/quickstart

Once with nothing compiled, then with what the first process has compiled (the median of --times). Where the time goes
is measured by processes that stop on the way: after Python, after JAX's import, after ours, after the model is open.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

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


def _seconds(arguments: list[str], folder: str) -> float:
    """Return the seconds until a process writes a character of its own, the prompt aside, or ends."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    )
    process.stdout.read(1)
    seconds = time.monotonic() - begun
    process.stdout.close()
    process.wait()
    return seconds


def main(arguments: list[str]) -> None:
    """Measure, print a table and one JSON object."""
    door = ["-m", "lm.generate", f"--from={FROM.value}", f"--prompt={PROMPT.value}"]
    with tempfile.TemporaryDirectory() as folder:
        found = {"cold": _seconds(door, folder)}
        median = lambda line: statistics.median(_seconds(line, folder) for _ in range(TIMES.value))
        done = ""
        for name, lines in STAGES.items():
            done = f"{done}{lines.format(place=FROM.value)}\n"
            found[name] = median(["-c", done])
        found["warm"] = median(door)
    for name, seconds in found.items():
        print(f"{name:8} {seconds:6.2f} s")
    print(json.dumps({name: round(seconds, 3) for name, seconds in found.items()}))


if __name__ == "__main__":
    app.run(main)
