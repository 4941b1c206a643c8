"""Meshes over the 8 fake devices, and the refusals."""

import ml_collections
import pytest

from lm.parallel.mesh import make_mesh
from lm.refusal import Refusal


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"), [(-1, 1, (8, 1)), (1, -1, (1, 8)), (2, 4, (2, 4)), (-1, 2, (4, 2)), (8, 1, (8, 1))]
)
def test_sizes(data, fsdp, shape):
    mesh = make_mesh(ml_collections.ConfigDict({"data": data, "fsdp": fsdp}), 16, 2)
    assert dict(mesh.shape) == {"data": shape[0], "fsdp": shape[1]}


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (-1, 3), (4, 4), (-1, 16)])
def test_sizes_that_do_not_fit(data, fsdp):
    with pytest.raises(Refusal, match=r"parallel\.mesh is data=.*number of devices \(8\)"):
        make_mesh(ml_collections.ConfigDict({"data": data, "fsdp": fsdp}), 16, 1)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(12, 1), (8, 2), (4, 1)])
def test_rows_that_do_not_divide(batch_size, accumulate):
    with pytest.raises(Refusal, match=rf"data\.batch_size is {batch_size}: .*8 × {accumulate}"):
        make_mesh(ml_collections.ConfigDict({"data": -1, "fsdp": 1}), batch_size, accumulate)
