"""Devices in, a mesh with named axes out."""

import jax
import numpy as np
from jax.sharding import Mesh

from lm.refusal import Refusal

AXES = ("data", "fsdp")  # rows are split along both, parameters along fsdp


def make_mesh(section, batch_size: int, accumulate: int) -> Mesh:
    """Return a mesh over all devices.

    Args:
      section: config.parallel.mesh: a size per axis, −1 takes the rest.
      batch_size: rows of a step, which the devices must divide.
      accumulate: micro-batches of a step, each of which they must divide too.

    Raises:
      Refusal: the sizes do not multiply to the number of devices, or do not divide the rows.
    """
    count = jax.device_count()
    sizes = {axis: section[axis] for axis in AXES}
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    sizes = {axis: count // known if size == -1 else size for axis, size in sizes.items()}
    if int(np.prod(list(sizes.values()))) != count:
        words = " × ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise Refusal(f"parallel.mesh is {words}: its sizes must multiply to the number of devices ({count}).")
    if batch_size % (count * accumulate):
        raise Refusal(
            f"data.batch_size is {batch_size}: it must be a multiple of devices × train.accumulate "
            f"({count} × {accumulate})."
        )
    return Mesh(np.asarray(jax.devices()).reshape(tuple(sizes.values())), AXES)
