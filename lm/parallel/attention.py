"""A way to compute attention and a mesh in; the same over the mesh's devices out."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.parallel import inside
from lm.parallel.mesh import ROWS
from lm.refusal import Refusal

# Queries are split along sequence, while every device has all keys and values of its rows and heads: they are gathered.
ARRAYS = {
    "query": PartitionSpec(ROWS, "sequence", "tensor"),
    "key": PartitionSpec(ROWS, None, "tensor"),
    "value": PartitionSpec(ROWS, None, "tensor"),
    "query_segments": PartitionSpec(ROWS, "sequence"),
    "key_segments": PartitionSpec(ROWS),
    "query_places": PartitionSpec(None, "sequence"),
    "prefix": PartitionSpec(ROWS),
}


def placed(attend: Callable, takes: Sequence[str], mesh: Mesh, how: str) -> Callable:
    """Return the attend of a model that lies over the mesh.

    Args:
      attend: as lm/model/attend.py's einsum, with further arguments.
      takes: their names, of those here; without any, the compiler splits what it computes.
      how: "jit" over the mesh; "pmap": every device sees but its own rows.
    """
    if not takes:
        return _gathered(mesh, attend) if mesh.shape["sequence"] > 1 else attend
    given = {"interpret": mesh.devices.flat[0].platform != "tpu"}
    if how == "jit":
        given |= {"split": functools.partial(_split, mesh), "parts": (mesh.shape["tensor"], mesh.shape["sequence"])}
    return functools.partial(attend, **{name: given[name] for name in takes if name in given})


def _gathered(mesh: Mesh, attend: Callable) -> Callable:
    """Return attend, its keys and values whole along sequence."""

    def gathered(query_BTHC, key_BSKC, value_BSKC, *more):
        key_BSKC, value_BSKC = inside.constrained((key_BSKC, value_BSKC), mesh, ARRAYS["key"])
        return attend(query_BTHC, key_BSKC, value_BSKC, *more)

    return gathered


def _split(mesh: Mesh, function: Callable, arrays: Mapping[str, Any]) -> Any:
    """Return function(arrays), led by rows, tokens and heads, computed by each device of its own."""
    specs = {name: ARRAYS[name] for name in arrays if name != "kernel"}
    if "kernel" in arrays:
        blocks = NamedSharding(mesh, PartitionSpec("tensor", "sequence"))
        specs["kernel"] = arrays["kernel"].manual_sharding_spec(blocks)
    # Kernels do not say what of them differs between devices.
    return inside.mapped(function, mesh, (specs,), ARRAYS["query"], check_vma=False)(arrays)


def fused(step: Any, name: str, call: str) -> Callable:
    """Return the step, compiled at its first call and refused if what computes attention is not in its program.

    Args:
      step: (state, batch) → …, jitted; all its calls have arrays of the same shapes, laid out the same way.
      name: of the way to compute attention.
      call: what the program's text has with it.
    """
    compiled = []

    def run(state: Any, batch: Any) -> Any:
        if not compiled:
            program = step.lower(state, batch).compile()
            check_fused(program.as_text(), name, call)
            compiled.append(program)
        return compiled[0](state, batch)

    return run


def check_fused(text: str, name: str, call: str) -> None:
    """Refuse a compiled program whose text has no operation of this call.

    Raises:
      Refusal: it would compute attention in another way than asked for.
    """
    if f'custom_call_target="{call}' not in text:
        raise Refusal(
            f"parallel.attention is {name!r}: the compiled step has no {call!r} in it and would compute attention in "
            "another way; set it to 'xla', or update JAX's CUDA plugin and cuDNN."
        )
