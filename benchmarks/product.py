"""How fast weights are read by a product with a few rows: as lm/model/product.py has it, and as it is written plainly.

    python benchmarks/product.py

The kernels of a layer of GPT-2 small, twelve times, one after another. GB/s of weights; the best of several turns.
"""

import time

import jax
import jax.numpy as jnp
from absl import app, flags

from lm.model.product import by_rows

ROWS = flags.DEFINE_list("rows", ["1", "2", "8", "64", "128"], "rows of the other operand")
TURNS = flags.DEFINE_integer("turns", 10, "of each", lower_bound=1)
_SHAPES, _LAYERS = ((2304, 768), (768, 768), (3072, 768), (768, 3072)), 12


def main(_) -> None:
    """Print a line for each dtype and number of rows."""
    for name in ("float32", "bfloat16", "int8"):
        layers = [[_weights(layer, shape, name) for shape in _SHAPES] for layer in range(_LAYERS)]
        size = sum(array.nbytes for array in jax.tree.leaves(layers))
        for rows in map(int, ROWS.value):
            x = jnp.ones((rows, 768), name)
            speeds = {kind: size / _seconds(product, x, layers) / 1e9 for kind, product in _KINDS.items()}
            print(f"{name}, {rows} rows: " + ", ".join(f"{kind} {speed:.1f}" for kind, speed in speeds.items()))


def _weights(seed: int, shape: tuple[int, int], dtype: str):
    return (jax.random.normal(jax.random.key(seed), shape) * (30 if dtype == "int8" else 0.02)).astype(dtype)


def _sums(x):
    return jnp.int32 if x.dtype == jnp.int8 else jnp.float32


_KINDS = {
    "by_rows": lambda x, rows: by_rows(x, rows, _sums(x)),
    "plain": lambda x, rows: jax.lax.dot_general(x, rows, (((1,), (1,)), ((), ())), preferred_element_type=_sums(x)),
}


def _seconds(product, x, layers) -> float:
    @jax.jit
    def run(x, layers):
        for wide, square, up, down in layers:
            hidden = product(x, wide)[:, : square.shape[1]].astype(x.dtype)
            for rows in (square, up, down):
                hidden = product(hidden, rows).astype(x.dtype)
            x = x + hidden
        return x

    run(x, layers).block_until_ready()
    seconds = []
    for _ in range(TURNS.value):
        begun = time.perf_counter()
        run(x, layers).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


if __name__ == "__main__":
    app.run(main)
