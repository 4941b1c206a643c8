"""What a process keeps for those to come: compiled programs, where it may."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax
from lm.parallel import host
host.keep_programs()
found = []
jax.monitoring.register_event_listener(lambda event, **words: found.append(event.rpartition("/")[2]))
jax.jit(lambda x: x * 2 + 1)(3.0)
print(found.count("cache_hits"), found.count("cache_misses"))
"""


def run(home, **environment):
    """Compile a program in a process; return how often it was found, and how often not."""
    names = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | environment
    line = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(line, cwd=ROOT, env=environment | {"HOME": str(home)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(map(int, done.stdout.split()))


def test_programs_are_compiled_once(tmp_path):
    hits, misses = run(tmp_path)
    assert hits == 0 and misses > 0 and any((tmp_path / ".cache/lm/programs").iterdir())
    assert run(tmp_path) == (misses, 0)


def test_where_jax_is_told_a_folder_that_one_is_taken(tmp_path):
    run(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "other"))
    assert not any((tmp_path / "home").rglob("*-cache"))


@pytest.mark.parametrize("is_file", [True, False])
def test_where_no_folder_can_be_made_nothing_is_kept(tmp_path, is_file):
    home = tmp_path / "home"
    home.write_text("a file") if is_file else (home / ".cache").mkdir(parents=True)
    if not is_file:
        (home / ".cache" / "lm").write_text("a file")
    assert run(home) == (0, 0)
