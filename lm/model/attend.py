"""Queries, keys, values and a mask in; each query's mean of the values it attends to out."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lm.model import masks

# What model.remat "attention" keeps.
NAME = "attention"


def einsum(
    query_BTHC,
    key_BSKC,
    value_BSKC,
    mask: masks.Mask,
    softmax_dtype: str,
    bias=None,
    soft_cap: float = 0.0,
    scale: float | None = None,
):
    """Return softmax(query · key · scale) · value (Vaswani et al. 2017, §3.2.1), `(B, T, H, C)`.

    Query head h reads key and value head h // G, where G = H / K (grouped queries: Ainslie et al. 2023).
    Holds all B·H·T·S scores at once.

    Args:
      bias: None, or (distance `(B or 1, T, S)`) → `(B or 1, H, T, S)`, added to the scores.
      soft_cap: scores become cap · tanh(scores / cap) before it (Gemma 2, arXiv 2408.00118, §2); 0: they stay.
      scale: None: 1 / √C.
    """
    rows, length, heads, head_width = query_BTHC.shape
    kv_heads = key_BSKC.shape[2]
    scale = head_width**-0.5 if scale is None else scale
    query_BTKGC = (query_BTHC * scale).reshape(rows, length, kv_heads, heads // kv_heads, head_width)
    scores_BKGTS = jnp.einsum("btkgc,bskc->bkgts", query_BTKGC, key_BSKC, preferred_element_type=softmax_dtype)
    if soft_cap:
        scores_BKGTS = soft_cap * jnp.tanh(scores_BKGTS / soft_cap)
    if bias is not None:
        bias_BHTS = bias(masks.distance(mask)).astype(softmax_dtype)
        scores_BKGTS = scores_BKGTS + bias_BHTS.reshape(len(bias_BHTS), *scores_BKGTS.shape[1:])
    allowed_BTS = masks.allowed(mask)
    scores_BKGTS = jnp.where(allowed_BTS[:, None, None], scores_BKGTS, jnp.finfo(softmax_dtype).min)
    highest_BKGT1 = jax.lax.stop_gradient(jnp.max(scores_BKGTS, axis=-1, keepdims=True))
    raised_BKGTS = jnp.exp(scores_BKGTS - highest_BKGT1)
    total_BKGT = jnp.sum(raised_BKGTS, axis=-1)
    # Dividing the mixture instead of the scores divides C numbers a query instead of S.
    mixed_BKGTC = jnp.einsum("bkgts,bskc->bkgtc", raised_BKGTS.astype(value_BSKC.dtype), value_BSKC)
    mixed_BKGTC = checkpoint_name(mixed_BKGTC, NAME)
    mixed_BHTC = mixed_BKGTC.reshape(rows, heads, length, head_width)
    mixed_BHTC = mixed_BHTC / total_BKGT.reshape(rows, heads, length, 1).astype(mixed_BHTC.dtype)
    mixed_BTKGC = mixed_BHTC.swapaxes(1, 2)
    return mixed_BTKGC.reshape(rows, length, heads, head_width)


def xla(
    query_BTHC,
    key_BSKC,
    value_BSKC,
    mask: masks.Mask,
    softmax_dtype: str,
    bias=None,
    soft_cap: float = 0.0,
    scale: float | None = None,
):
    """Return the same as `einsum`, as JAX writes it: scores in heads' order, softmax in float32, no soft cap.

    Its products have the algorithm that bfloat16 asks for, where the backend has one.
    """
    bias_BHTS = None if bias is None else bias(masks.distance(mask))
    allowed_B1TS = masks.allowed(mask)[:, None]
    mixed_BTHC = jax.nn.dot_product_attention(
        query_BTHC, key_BSKC, value_BSKC, bias_BHTS, allowed_B1TS, scale=scale, implementation="xla"
    )
    return checkpoint_name(mixed_BTHC, NAME)
