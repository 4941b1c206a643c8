"""What of a mesh is a process's own, and whether its devices have room for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.parallel import local
from lm.refusal import Refusal


@pytest.mark.parametrize(
    ("owners", "shape"),
    [
        ([0, 0, 1, 1], (2,)),
        ([0, 1, 2], (1,)),
        ([[0, 0, 1, 1], [2, 2, 3, 3]], (1, 2)),
        ([[0, 0, 1, 1], [0, 0, 1, 1]], (2, 2)),
        ([[0, 1], [0, 1], [0, 1]], (3, 1)),
        ([[3, 3, 1, 1], [3, 3, 1, 1], [0, 0, 2, 2], [0, 0, 2, 2]], (2, 2)),
        ([0, 1, 0, 1], (1,)),
        ([0, 0, 1, 2, 1, 2], (1,)),
        ([[0, 0, 1], [2, 2, 1]], (1, 1)),
        ([[0, 0, 0]], (1, 3)),
    ],
    ids=str,
)
def test_a_process_has_a_block_of_the_mesh(owners, shape):
    assert local.within(np.array(owners)) == shape


def test_parameters_for_which_there_is_no_room_are_refused(mesh_of):
    mesh = mesh_of(fsdp=2, tensor=2)
    params = {"decoder": {"block": {"attention": {"query": {"kernel": jnp.zeros((3, 8, 4, 5))}}}}}
    params = jax.eval_shape(lambda: params)
    share = 3 * 8 * 4 * 5 * 4 // 4  # four devices of one process, float32
    local.check({"params": params}, params, mesh, 2 * share, 5)
    with pytest.raises(Refusal, match=r"^train\.sample_every is 5: .* set it to -1"):
        local.check({"params": params}, params, mesh, 2 * share - 1, 5)


def test_one_process_has_all():
    params = {"a": jnp.ones(3)}
    assert local.alone(params, None) is params
