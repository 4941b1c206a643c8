"""Meshes over the fake devices, and training on them; and runs of several real processes."""

import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest

from lm import metrics
from lm.parallel import compile as compiling
from lm.parallel import rules
from lm.parallel.mesh import AXES, make_mesh


@pytest.fixture(scope="session")
def mesh_of():
    """Return a function: sizes of axes, 1 where none is given → a mesh over as many of the 8 fake devices."""

    def make(**sizes):
        section = ml_collections.ConfigDict(dict.fromkeys(AXES, 1) | sizes)
        return make_mesh(section, 64, 1, jax.devices()[: math.prod(sizes.values())])

    return make


@pytest.fixture(scope="session")
def train(assembled, random_state, random_batch):
    """Return a function: config and mesh → metrics of some steps, the last state, and whether the first was deleted.

    The steps' batches are of random_batch, with its lengths.
    """

    def run(config, mesh, steps=5, **lengths):
        create, step = assembled(config, mesh)
        first = state = jax.device_put(random_state(create), rules.shardings(jax.eval_shape(create), mesh))
        step = compiling.compile_step(step, state, mesh, config.parallel.compile)
        found = []
        for number in range(steps):
            state, metrics = step(state, jax.device_put(random_batch(number, **lengths), rules.rows(mesh)))
            found.append(metrics)
        return found, state, all(leaf.is_deleted() for leaf in jax.tree.leaves(first))

    return run


STEPS = 20
TINY = {
    "data.tokenizer": "char", "data.batch_size": 8, "model.width": 24, "model.layers": 2, "model.heads": 4,
    "model.context": 18, "train.steps": STEPS, "train.log_every": 1, "train.checkpoint_every": 7,
    "train.evaluate_every": 10, "train.sample_every": 10, "train.mirrors": "()", "train.sample_prompt": "a",
    "schedule.name": "constant", "schedule.warmup_steps": 0, "parallel.mesh.data": 1, "parallel.mesh.fsdp": -1,
    "sample.max_new_tokens": 5,
}  # fmt: skip


class Runs:
    """Runs of python -m lm.train in one folder, each of a name, which share a text, a config and the stores.

    values: dotted config values of all of them. elsewhere: name → workdir, of those that are not in the folder.
    """

    def __init__(self, folder):
        self.folder, self.elsewhere = folder, {}
        self.values = TINY | {"data.source": f"files:{folder}/text.txt", "data.store": str(folder / "store")}
        draw = random.Random(3)
        words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
        lines = (" ".join(draw.choices(words, k=9)) + "." for _ in range(200))
        (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
        (folder / "config.py").write_text("from lm.config import defaults as get_config\n", encoding="utf-8")

    def workdir(self, name):
        """Return a run's folder."""
        return self.elsewhere.get(name, self.folder / name)

    def start(self, name, count, devices, *, launch=(), **overrides):
        """Start a run of so many processes of so many devices each."""
        values = self.values | {field.replace("__", "."): value for field, value in overrides.items()}
        line = [
            sys.executable,
            "-m",
            "lm.train",
            f"--config={self.folder}/config.py",
            f"--workdir={self.workdir(name)}",
        ]
        line += [f"--config.{field}={value}" for field, value in values.items()]
        return self.launch(name, line, count, devices, *launch)

    def launch(self, name, line, count, devices, *more):
        """Start a command as several processes; its words go to NAME.log."""
        launch = [sys.executable, "-m", "lm.parallel.launch", f"--processes={count}", f"--devices={devices}", *more]
        flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
        half = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # the time to compile
        with open(self.folder / f"{name}.log", "w", encoding="utf-8") as file:
            return subprocess.Popen(
                [*launch, "--", *line], env=os.environ | half, cwd=Path(__file__).parents[2], stdout=file, stderr=file
            )

    def end(self, name, process, status=0):
        """Wait for a run; return what it has said."""
        found = process.wait(timeout=200)
        words = self.said(name)
        assert found == status, words
        return words

    def said(self, name):
        """Return what a run has said so far."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def losses(self, name):
        """Return the training losses of a run, the norms of its gradients, and its losses of validation, by step."""
        rows = metrics.read(self.workdir(name))
        found = [[(row.step, row.value) for row in rows if row.name == kind] for kind in ("train/loss", "grad_norm")]
        assert all([step for step, _ in part] == list(range(1, STEPS + 1)) for part in found)
        found.append([(row.step, row.value) for row in rows if row.name == "valid/loss" and row.step in (10, STEPS)])
        assert len(found[-1]) == 2
        return np.array([value for part in found for _, value in part])


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Return a folder's Runs."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def straight(runs):
    """Return the losses of the run "one", of one process with one device."""
    runs.end("one", runs.start("one", 1, 1))
    return runs.losses("one")


@pytest.fixture(scope="session")
def until():
    """Return a function that waits for a condition."""

    def wait(condition):
        limit = time.monotonic() + 100
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.01)

    return wait
