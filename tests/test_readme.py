"""The commands of the README and of some pages of docs, run as they stand there, in turn, in a folder of their own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LESS = ("--config.train.steps=2", "--config.data.valid_fraction=0.01")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("weights", "parallel")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder with the configs, some text, and a short run where the README says that one is."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "docs").mkdir()
    for number in range(3):
        (folder / "docs" / f"{number}.txt").write_text("\n".join(f"line {n} of text {number}" for n in range(2000)))
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "lm.train --config=$(CONFIG) --workdir=$(WORKDIR)" in make
    done = run(folder, "python -m lm.train --config=configs/quickstart.py --workdir=runs/quickstart")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder, line):
    """Run a command line with this Python, its home in the folder.

    What it says to XLA is added to what tests say. Runs take two steps, and hold out less text than they would.
    """
    before, words = line.split("python ", 1)
    environment = os.environ | {"HOME": str(folder)}
    for name, value in (word.split("=", 1) for word in shlex.split(before)):
        environment[name] = f"{environment.get(name, '')} {value}".strip()
    line = [sys.executable, *shlex.split(words), *(LESS if "lm.train" in words else ())]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


BLOCKS = re.findall(r"```sh\n(.*?)```", "\n".join([README, *PAGES]), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.strip().splitlines()]


def test_there_are_commands():
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_work(clone, line):
    done = run(clone, line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or "done in" in done.stderr


def test_refusals_read_as_shown(clone):
    shown = re.findall(r"```\n\$ (.*?)\n(error: .*?)\n```", README)
    assert shown
    for line, sentence in shown:
        done = run(clone, line)
        assert done.returncode == 2 and done.stderr.strip() == sentence


def test_the_config_shown_resolves():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(block, names)
    from lm.config.resolve import resolve

    assert resolve(names["get_config"]()).model.norm == "rms"


def test_files_and_links_named_exist():
    for name in re.findall(r"`((?:lm|configs|tests|docs)/[\w./-]+\.\w+)", README) + re.findall(
        r"\]\(([^)#]+)\)", README
    ):
        assert (ROOT / name).exists(), name
