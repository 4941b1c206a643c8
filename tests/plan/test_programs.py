"""Programs made from shapes do what those of a run do: the same loss, the same tokens; over the 8 fake devices."""

import jax
import numpy as np
import pytest

from lm import trees
from lm.generate import decode, prepare, samplers
from lm.generate.method import padded
from lm.model.transformer import Transformer
from lm.objective.catalog import objective
from lm.parallel import prepared, rules
from lm.parallel.mesh import make_mesh
from lm.plan import programs
from lm.refusal import Refusal

MESH = {"parallel.mesh.data": 2, "parallel.mesh.fsdp": 2, "parallel.mesh.tensor": 2}
OF_EXPERTS = {"parallel.mesh.data": 2, "parallel.mesh.expert": 2, "parallel.mesh.tensor": 2}


def mesh_over(config):
    """Return the config's mesh over all fake devices."""
    return make_mesh(config.parallel.mesh, config.data.batch_size, config.train.accumulate)


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
def test_a_batch_has_the_shapes_of_real_ones(tiny, shaped, setting, family):
    config = tiny(model__family=family, model__context=40)
    expected = shaped(config)
    found = programs.batch_shapes(objective(config.objective, setting(config.model)), config.model.context, 8)
    assert trees.paths(found) == trees.paths(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, jax.dtypes.canonicalize_dtype(other.dtype))


def test_the_train_step_is_that_of_a_run(tiny, assembled, random_state, shaped):
    config = tiny(model__layers=2, model__unroll=1, **MESH)
    create, step = assembled(config)
    state, batch = random_state(create), shaped(config)
    expected = jax.jit(step)(state, batch)[1]
    mesh = mesh_over(config)
    placed = jax.device_put(state, rules.shardings(state, mesh)), jax.device_put(batch, rules.rows(mesh))
    found = programs.train_step(config, mesh).compile()(*placed)[1]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed[0]))


@pytest.mark.parametrize(("family", "mesh"), [("llama", MESH), ("t5", MESH), ("mixtral", OF_EXPERTS)])
def test_the_decode_step_writes_what_one_device_writes(tiny, random_params, family, mesh):
    config = tiny(model__family=family, model__layers=2, model__unroll=1, **mesh)
    mesh = mesh_over(config)
    model = Transformer(config.model)
    params = prepare.ready(config.model, random_params(model))
    ids, lengths = padded([[3, 1, 4, 1, 5, 9], [2, 6], [5, 3, 5, 8], [9, 7, 9]], 6)
    read = lambda: decode.prefill(model, params, ids, lengths, slots=13)
    keys = jax.random.split(jax.random.key(0), 4)
    expected = decode.extend(model, params, read(), keys, samplers.Settings(), 5)
    program = programs.decode_step(config, mesh, 4).compile()
    reading = jax.device_put(read(), prepared.shardings(read(), mesh, prepared.READING))
    placed = jax.device_put(params, prepared.shardings(params, mesh))
    found = program(placed, reading, jax.device_put(keys, rules.rows(mesh)), samplers.Settings(), np.int32(5))
    np.testing.assert_array_equal(found.text.ids, expected.text.ids)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert len({tuple(row) for row in np.asarray(found.text.ids).tolist()}) > 2
    assert any("tensor" in str(leaf.sharding.spec) for leaf in jax.tree.leaves(placed))


def test_what_does_not_divide_is_refused(tiny):
    config = tiny(**MESH)
    with pytest.raises(Refusal, match=r"parallel\.mesh\.slice × data × fsdp × expert is 4: it must divide 6"):
        programs.decode_step(config, mesh_over(config), 6)
