"""Where the rules put each leaf of a state."""

import jax
import pytest

from lm import trees
from lm.families.catalog import FAMILIES
from lm.optim.optimizers import OPTIMIZERS
from lm.parallel import rules
from lm.refusal import Refusal


@pytest.fixture(scope="module")
def mesh(mesh_of):
    return mesh_of(data=2, fsdp=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_split_along_its_width(tiny, assembled, mesh, family):
    """Width is 20 here and no other size is; scalars, biases and scales are whole on every device.

    A kernel from the width to the width is split by its first.
    """
    config = tiny(model__family=family, model__width=20, model__head_width=8, model__feedforward_width=44)
    state = jax.eval_shape(assembled(config)[0])
    shardings = jax.tree.leaves(rules.shardings(state, mesh))
    matrices = 0
    for path, leaf, sharding in zip(trees.paths(state), jax.tree.leaves(state), shardings, strict=True):
        is_matrix = path.endswith(("kernel", "embed/embedding"))
        first = leaf.shape.index(20) if is_matrix and 20 in leaf.shape else -1
        expected = tuple(size // 4 if axis == first else size for axis, size in enumerate(leaf.shape))
        assert sharding.shard_shape(leaf.shape) == expected, path
        matrices += is_matrix and expected != leaf.shape
    named = [path for path in trees.paths(state.params) if path.endswith(("kernel", "embed/embedding"))]
    assert matrices == 3 * len(named)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_every_optimizer_has_its_place(tiny, assembled, mesh_of, name):
    """Where a leaf has the shape of its parameter, it is laid out as that is; everything else is whole."""
    mesh = mesh_of(data=4, fsdp=2)
    ema = 0.0 if name == "schedule_free" else 0.5
    state = jax.eval_shape(assembled(tiny(optimizer__name=name, train__ema=ema))[0])
    shardings = dict(zip(trees.paths(state), jax.tree.leaves(rules.shardings(state, mesh)), strict=True))
    params = {path.removeprefix("params/"): sharding for path, sharding in shardings.items() if path[:7] == "params/"}
    shapes = dict(zip(trees.paths(state.params), (leaf.shape for leaf in jax.tree.leaves(state.params)), strict=True))
    found = 0
    for path, leaf in zip(trees.paths(state), jax.tree.leaves(state), strict=True):
        name = next((name for name in params if path.endswith("/" + name)), None)
        if name and leaf.shape == shapes[name]:
            assert shardings[path].shard_shape(leaf.shape) == params[name].shard_shape(leaf.shape), path
            found += shardings[path].shard_shape(leaf.shape) != leaf.shape
        else:
            assert shardings[path].shard_shape(leaf.shape) == leaf.shape, path
    assert found >= 2 * sum(path.endswith("kernel") for path in params)


def test_widths_that_do_not_divide_are_named(tiny, assembled, mesh):
    state = jax.eval_shape(assembled(tiny(model__width=22))[0])
    with pytest.raises(Refusal, match=r"parallel\.mesh\.fsdp is 4: it must divide 22, an axis of params/"):
        rules.shardings(state, mesh)


def test_a_path_without_rule_is_an_error(mesh):
    with pytest.raises(ValueError, match="no rule matches 'unheard/of'"):
        rules.shardings({"unheard": {"of": jax.ShapeDtypeStruct((8,), "float32")}}, mesh)


def test_lengths_that_do_not_divide_are_named(mesh_of, random_batch):
    row = jax.tree.map(lambda field: field[0], random_batch(length=12, encoder_length=11))
    rules.check_lengths(mesh_of(sequence=1), row)
    rules.check_lengths(
        mesh_of(sequence=4), row._replace(encoder_inputs=None, encoder_segments=None, encoder_positions=None)
    )
    with pytest.raises(Refusal, match=r"parallel\.mesh\.sequence is 4: it must divide 11, the tokens of a row\."):
        rules.check_lengths(mesh_of(sequence=4), row)


def test_rows_are_split_over_all_devices(mesh):
    assert rules.rows(mesh).shard_shape((16, 13)) == (2, 13)
