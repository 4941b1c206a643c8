"""A pure step in; the same step compiled over a mesh out."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel import rules


def compile_step(step: Callable, state: Any, mesh: Mesh) -> Callable:
    """Return `jit(step)`: the state is donated and keeps its layout, the batch is split by rows.

    Args:
      step: (state, batch) → (state, metrics).
      state: a State of arrays or of their shapes.
    """
    layout = rules.shardings(state, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, in_shardings=(layout, rules.rows(mesh)), out_shardings=(layout, whole), donate_argnums=0)


def initialise(create: Callable[[], Any], mesh: Mesh) -> Any:
    """Return `create()`, each leaf made where it belongs, never whole on one device."""
    layout = rules.shardings(jax.eval_shape(create), mesh)
    return jax.jit(create, out_shardings=layout)()


def keep_memory() -> None:
    """Let glibc's allocator keep what XLA:CPU frees after every step.

    Otherwise the kernel takes the temporary buffers back and gives them again page by page: 15,000 page faults
    a step for a small model, about a tenth of its time. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)
    mallopt(mmap_max, 0)
    mallopt(arena_max, 1)
