"""Meshes over the 8 fake devices, and the refusals."""

from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest

from lm.parallel.mesh import AXES, make_mesh
from lm.refusal import Refusal


def _section(given):
    return ml_collections.ConfigDict(dict.fromkeys(AXES, 1) | given)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"data": -1}, {"data": 8}),
        ({"data": 1, "fsdp": -1}, {"fsdp": 8}),
        ({"data": 2, "fsdp": 4}, {"data": 2, "fsdp": 4}),
        ({"data": -1, "tensor": 2}, {"data": 4, "tensor": 2}),
        ({"slice": 2, "expert": -1, "sequence": 2}, {"slice": 2, "expert": 2, "sequence": 2}),
    ],
)
def test_sizes(given, sizes):
    mesh = make_mesh(_section(given), 16, 2)
    assert {axis: size for axis, size in mesh.shape.items() if size > 1} == sizes
    assert list(mesh.shape) == list(AXES)


def test_the_inner_axes_are_of_neighbours():
    mesh = make_mesh(_section({"data": 2, "fsdp": 2, "tensor": 2}), 16, 1)
    numbers = np.vectorize(lambda device: device.id)(mesh.devices).reshape(2, 2, 2)
    np.testing.assert_array_equal(numbers, np.arange(8).reshape(2, 2, 2))


def test_devices_in_slices_must_be_split_as_they_lie():
    devices = [SimpleNamespace(id=number, platform="tpu", slice_index=number // 4) for number in range(8)]
    with pytest.raises(Refusal, match=r"parallel\.mesh\.slice is 1: the devices lie in 2 slices; set it to 2\."):
        make_mesh(_section({"data": 8}), 16, 1, devices)


@pytest.mark.parametrize("given", [{"data": 3}, {"data": -1, "fsdp": 3}, {"data": 4, "tensor": 4}, {"expert": 2}])
def test_sizes_that_do_not_fit(given):
    with pytest.raises(Refusal, match=r"parallel\.mesh is .*=.*number of devices \(8\)"):
        make_mesh(_section(given), 16, 1)


@pytest.mark.parametrize(("batch_size", "accumulate", "split"), [(12, 1, 8), (8, 2, 8), (4, 1, 8), (6, 1, 4)])
def test_rows_that_do_not_divide(batch_size, accumulate, split):
    with pytest.raises(Refusal, match=rf"data\.batch_size is {batch_size}: .*\({split} × {accumulate}\)"):
        make_mesh(_section({"data": -1, "tensor": 8 // split}), batch_size, accumulate)
