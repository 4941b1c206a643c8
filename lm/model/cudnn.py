"""Queries, keys, values and a mask in; each query's mean of the values it attends to out: the kernel of NVIDIA's cuDNN.

Scores are computed block by block and never held (Dao 2023, arXiv 2307.08691). What is seen is an array of 16-bit
numbers added to the scores, `(B, 1, T, S)`, one for all heads: records, windows and prefixes can be any.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lm.model import masks
from lm.model.attend import NAME
from lm.model.operands import operands, whole

EVEN = 2  # of what lengths must be multiples, that there be gradients


def cudnn(
    query_BTHC,
    key_BSKC,
    value_BSKC,
    mask: masks.Mask,
    softmax_dtype: str,
    bias=None,
    soft_cap: float = 0.0,
    scale: float | None = None,
    split: Callable = whole,
    parts: tuple[int, int] = (1, 1),
):
    """Return the same as `einsum`, softmax in float32, of 16-bit rows whose mask has segments, no bias and no cap.

    Args:
      split: (function, arrays by name) → function(arrays), run by each device on its part of them.
      parts: how many parts heads and queries are split into.
    """
    arrays = operands(query_BTHC, key_BSKC, value_BSKC, mask, EVEN * parts[1])
    # Blocks that causality hides are left out where the first query is also the row's.
    is_causal = mask.is_causal and mask.prefix is None and parts[1] == 1

    def run(arrays):
        places = {"query_places": arrays["query_places"], "key_places": jnp.arange(arrays["key"].shape[1])[None]}
        segments = {name: arrays[name] for name in ("query_segments", "key_segments")}
        allowed_BTS = masks.allowed(mask._replace(**places, **segments, prefix=arrays.get("prefix")))
        return jax.nn.dot_product_attention(
            *(arrays[name] for name in ("query", "key", "value")),
            mask=allowed_BTS[:, None],
            scale=scale,
            is_causal=is_causal,
            implementation="cudnn",
        )

    return checkpoint_name(split(run, arrays)[:, : query_BTHC.shape[1]], NAME)
