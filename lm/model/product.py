"""Products of a few rows with large weights, as a step of generation has them: what takes its time is reading these."""

from functools import partial

import jax
import jax.numpy as jnp

_FEW = 128  # rows


def by_rows(x_NI, rows_OI, dtype):
    """Return x · rowsᵀ in dtype, `(N, O)`."""
    if len(x_NI) > _FEW:
        return _plain(x_NI, rows_OI, dtype)
    on_cpu, plain = partial(_on_cpu, dtype=dtype), partial(_plain, dtype=dtype)
    return jax.lax.platform_dependent(x_NI, rows_OI, cpu=on_cpu, default=plain)


def _plain(x_NI, rows_OI, dtype):
    return jax.lax.dot_general(x_NI, rows_OI, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def _on_cpu(x_NI, rows_OI, dtype):
    """Return the same in the forms that XLA:CPU reads weights fast in (benchmarks/product.py).

    Weights are the left operand, which it need not rearrange; barriers keep it from turning this around, and from
    fusing what comes before. It has no fast product of one row of numbers below 32 bits, so there are two then; one of
    32 bits it multiplies on several threads where the weights are several.
    """
    count, (outputs, inputs) = len(x_NI), rows_OI.shape
    if count == 1 and x_NI.dtype.itemsize == 4:
        parts = next(parts for parts in (4, 3, 2, 1) if outputs % parts == 0)
        rows_POI, x_PI = rows_OI.reshape(parts, -1, inputs), jnp.broadcast_to(x_NI, (parts, inputs))
        product_PO = jax.lax.dot_general(rows_POI, x_PI, (((2,), (1,)), ((0,), (0,))), preferred_element_type=dtype)
        return product_PO.reshape(1, outputs)
    x_NI = jax.lax.optimization_barrier(jnp.pad(x_NI, ((0, max(0, 2 - count)), (0, 0))))
    product_ON = jax.lax.optimization_barrier(_plain(rows_OI, x_NI, dtype))
    return product_ON.T[:count]
