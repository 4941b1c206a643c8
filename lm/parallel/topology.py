"""A TPU topology's name in, its devices out where there are none: programs are compiled for them, not run."""

from typing import Any

from jax.errors import JaxRuntimeError
from jax.experimental import topologies

from lm.refusal import Refusal, extra

# What libtpu asks of a machine that is no TPU's. Whoever starts a process that compiles gives it these, since they are
# read when JAX is imported; the compiler reads no flags of other backends, and finds no program that was kept.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_FLAGS": "",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def devices(name: str, slices: int = 1) -> list[Any]:
    """Return the devices of so many slices of a topology; a mesh may be made of them, and shapes be laid over it.

    Args:
      name: a generation and its chips along each axis, such as v5e:2x4, v5p:2x2x4, v6e:4x4.
      slices: of that topology each, joined by the data centre's network.

    Raises:
      Refusal: libtpu is not installed, or has no such topology.
    """
    extra("libtpu", "tpu", f"compiling for the topology {name!r} needs libtpu")
    try:
        return list(topologies.get_topology_desc(name, "tpu", num_slices=slices).devices)
    except JaxRuntimeError as error:
        why = str(error).partition(": ")[2].splitlines()[0].rstrip(".")
        raise Refusal(f"the topology is {name!r}: it must be one such as v5e:2x4 or v5p:2x2x4 ({why}).") from None
