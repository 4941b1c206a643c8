"""Queries, keys, values and a mask in; each query's mean of the values it attends to out: the kernel of TPUs.

Scores are computed block by block and never held, and blocks that causality or a window hide are not computed
(Dao et al. 2022, arXiv 2205.14135; jax.experimental.pallas.ops.tpu.splash_attention).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.pallas.ops.tpu import splash_attention as kernels

from lm.model import masks
from lm.model.attend import NAME
from lm.model.operands import operands, whole

LANES = 128  # a TPU's; lengths are multiples of it
BLOCKS = (512, 256, LANES)  # lengths of the blocks of scores, the longest that divides being taken


def splash(
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
    interpret: bool = False,
):
    """Return the same as `einsum`, softmax in float32, of rows whose mask has segments, no prefix and no bias.

    Lengths that are no multiples of 128 are filled up.

    Args:
      split: (function, arrays by name) → function(arrays), run by each device on its part of them.
      parts: how many parts heads and queries are split into.
      interpret: run operation by operation, slowly, where there is no TPU.
    """
    length, heads, head_width = query_BTHC.shape[1:]
    scale = head_width**-0.5 if scale is None else scale
    arrays = operands(query_BTHC * scale, key_BSKC, value_BSKC, mask, LANES * parts[1])
    del arrays["query_places"]  # the kernel knows them
    shape = arrays["query"].shape[1], arrays["key"].shape[1]
    arrays["kernel"] = _kernel(shape, heads, mask.is_causal, mask.window, soft_cap, parts, interpret)
    return split(_run, arrays)[:, :length]


def _run(arrays):
    """Return the values' means `(B, T, H, C)` of one device's part."""
    segments = kernels.SegmentIds(arrays["query_segments"], arrays["key_segments"])
    by_heads = [arrays[name].swapaxes(1, 2) for name in ("query", "key", "value")]
    return jax.vmap(arrays["kernel"])(*by_heads, segments).swapaxes(1, 2)


def _kernel(
    shape: tuple[int, int],
    heads: int,
    is_causal: bool,
    window: int | None,
    soft_cap: float,
    parts: tuple[int, int],
    interpret: bool,
) -> Any:
    """Return the kernel of so many queries and keys, a pytree; an axis that is split leads with that of its parts."""
    length, slots = shape
    back, ahead = (length, slots) if window is None else (window - 1, window - 1)
    # One kind of mask for all, since that which hides nothing cannot be split.
    mask = kernels.LocalMask(shape, (back, 0 if is_causal else ahead), 0)
    query = next(size for size in BLOCKS if length // parts[1] % size == 0)
    key = next(size for size in BLOCKS if slots % size == 0)
    blocks = kernels.BlockSizes(
        block_q=query,
        block_kv=key,
        block_q_dkv=query,
        block_kv_dkv=key,
        block_q_dq=query,
        block_kv_dq=key,
    )
    return kernels.make_splash_mha(
        kernels.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        attn_logits_soft_cap=soft_cap or None,
        head_shards=parts[0],
        q_seq_shards=parts[1],
        residual_checkpoint_name=NAME,
        interpret=interpret,
    )
