"""Parameters that lie over all processes in; the same as one process can use them without the others out."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lm.parallel import rules
from lm.refusal import Refusal


def alone(params: Any, mesh: Mesh) -> Any:
    """Return parameters as this process can use them by itself: laid over its own devices.

    Each is split along what of the mesh's axes lies within a process. As they are if it is the only process. To be
    called by all.
    """
    if jax.process_count() == 1:
        return params
    halves = _halves(mesh)
    mine = _mine(halves, jax.process_index())
    gathered = jax.jit(_same, out_shardings=rules.shardings(params, halves))(params)
    own = lambda leaf: [shard.data for shard in leaf.addressable_shards if shard.device in set(mine.devices.flat)]
    return jax.tree.map(
        lambda leaf, sharding: jax.make_array_from_single_device_arrays(leaf.shape, sharding, own(leaf)),
        gathered,
        rules.shardings(params, mine),
    )


def _same(tree: Any) -> Any:
    return tree


def _halves(mesh: Mesh) -> Mesh:
    """Return the mesh with each axis in two: "between" processes, and, by its own name, what lies within each."""
    sizes = within(np.vectorize(lambda device: device.process_index)(mesh.devices))
    shape = [part for whole, size in zip(mesh.devices.shape, sizes, strict=True) for part in (whole // size, size)]
    names = [name for axis in mesh.axis_names for name in (f"between {axis}", axis)]
    return Mesh(mesh.devices.reshape(shape), names)


def _mine(halves: Mesh, process: int) -> Mesh:
    """Return the mesh of a process's own devices, by the names of the axes within it."""
    sizes = halves.devices.shape[1::2]
    own = [device for device in halves.devices.flat if device.process_index == process]
    return Mesh(np.array(own)[: math.prod(sizes)].reshape(sizes), halves.axis_names[1::2])


def within(owners: np.ndarray) -> tuple[int, ...]:
    """Return the shape of the block that each process has of a mesh; all 1 where the mesh is none of equal blocks.

    Args:
      owners: the process of each device of the mesh.
    """
    is_first = owners == owners.flat[0]
    axes = range(owners.ndim)
    sizes = [int(is_first.any(axis=tuple(other for other in axes if other != axis)).sum()) for axis in axes]
    if all(whole % size == 0 for whole, size in zip(owners.shape, sizes, strict=True)):
        parts = owners.reshape(
            [part for whole, size in zip(owners.shape, sizes, strict=True) for part in (whole // size, size)]
        )
        blocks = parts.transpose([*range(0, 2 * owners.ndim, 2), *range(1, 2 * owners.ndim, 2)])
        blocks = blocks.reshape(-1, math.prod(sizes))
        if (blocks == blocks[:, :1]).all() and len(set(blocks[:, 0].tolist())) == len(blocks):
            return tuple(sizes)
    return (1,) * owners.ndim


def check(state: Any, params: Any, mesh: Mesh, limit: int, every: int) -> None:
    """Refuse to sample from parameters for which a process's devices have no room beside the state.

    Args:
      state, params: shapes.
      limit: bytes of a device.
      every: train.sample_every.
    """
    held, taken = _share(state, mesh), _share(params, _halves(mesh))
    if held + taken > limit:
        sizes = " ".join(f"{size / 2**30:.1f}" for size in (taken, held, limit)).split()
        raise Refusal(
            "train.sample_every is {}: to sample, a process lays the parameters over its own devices, which takes {} "
            "GiB of each beside the state's {}, and there are {}; set it to -1, for no samples, or let "
            "parallel.mesh.fsdp or tensor split them within a process.".format(every, *sizes)
        )


def _share(tree: Any, mesh: Mesh) -> int:
    """Return how many bytes of a tree of shapes lie on each device of a mesh."""
    part = lambda leaf, sharding: math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return sum(jax.tree.leaves(jax.tree.map(part, tree, rules.shardings(tree, mesh))))
