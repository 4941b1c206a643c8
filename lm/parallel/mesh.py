"""Devices in, a mesh with named axes out."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from lm.refusal import Refusal

# Outermost first: what talks least lies farthest apart.
AXES = ("slice", "data", "fsdp", "expert", "sequence", "tensor")
COPIES = ("slice", "data")  # the axes that split nothing but a batch's rows
ROWS = (*COPIES, "fsdp", "expert")  # the axes that split a batch's rows


def make_mesh(section: Any, batch_size: int, accumulate: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh over the devices.

    Args:
      section: config.parallel.mesh: a size per axis, −1 takes the rest.
      batch_size: rows of a step, which the devices must divide that split rows.
      accumulate: micro-batches of a step, each of which they must divide too.
      devices: None: all that there are.

    Raises:
      Refusal: the sizes do not multiply to the number of devices, do not divide the rows, or slices are not what the
        devices lie in.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    sizes = {axis: section[axis] for axis in AXES}
    known = math.prod(size for size in sizes.values() if size != -1)
    sizes = {axis: count // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != count:
        words = " × ".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1) or "of one device"
        raise Refusal(f"parallel.mesh is {words}: its sizes must multiply to the number of devices ({count}).")
    split = math.prod(sizes[axis] for axis in ROWS)
    if batch_size % (split * accumulate):
        raise Refusal(
            f"data.batch_size is {batch_size}: it must be a multiple of the devices that split rows × train.accumulate "
            f"({split} × {accumulate})."
        )
    return Mesh(_placed(devices, tuple(sizes.values())), AXES)


def _placed(devices: list, shape: tuple[int, ...]) -> np.ndarray:
    """Return the devices in the mesh's shape, neighbours in the inner axes, slices along the first."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices not in (1, shape[0]) and devices[0].platform == "tpu":
        raise Refusal(f"parallel.mesh.slice is {shape[0]}: the devices lie in {slices} slices; set it to {slices}.")
    if slices == 1 or shape[0] != slices:  # on GPUs each host may count as a slice
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within, between = (1, *shape[1:]), (slices, *[1] * (len(shape) - 1))
    return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
