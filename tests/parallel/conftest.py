"""Meshes over the fake devices, and training on them."""

import math

import jax
import ml_collections
import pytest

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
