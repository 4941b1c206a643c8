"""Hidden states, the head's weights and targets in; (sum of losses, sum of weights) out."""

from functools import partial

import jax
import jax.numpy as jnp


def cross_entropy(hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, chunk_tokens, logits_dtype="float32"):
    """Return (sum of −log p(target) in nats, sum of weights), both scalars of `logits_dtype`.

    Logits of at most `chunk_tokens` tokens (of at least one position of every row) exist at once, in the
    backward pass too: the gradient is made together with the loss, as softmax − one-hot.

    Args:
      hidden_BTD: final hidden states.
      unembed_DV: the head; columns from `vocabulary` on are padding, outside the softmax.
      targets_BT: int32 ids below `vocabulary`.
      weights_BT: how much each target counts.
      vocabulary: number of token ids.
      chunk_tokens: most tokens whose logits exist at once.
      logits_dtype: of the logits and of the loss.
    """
    rows, length = targets_BT.shape
    positions = max(1, min(length, chunk_tokens // rows))
    while length % positions:
        positions -= 1
    dtype = jnp.dtype(logits_dtype)
    total = _chunked(hidden_BTD, unembed_DV, targets_BT, weights_BT.astype(dtype), vocabulary, positions, dtype)
    return total, jnp.sum(weights_BT, dtype=dtype)


def log_softmax_parts(hidden, unembed_DV, vocabulary, dtype):
    """Return logits `(…, V)` with padding at −∞, and the log of their summed exponentials `(…, 1)`."""
    flat = jnp.matmul(hidden.reshape(-1, hidden.shape[-1]), unembed_DV, preferred_element_type=jnp.float32)
    logits = flat.astype(dtype).reshape(*hidden.shape[:-1], -1)
    if vocabulary < logits.shape[-1]:
        is_padding = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) >= vocabulary
        logits = jnp.where(is_padding, -jnp.inf, logits)
    return logits, jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def _sum(hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, dtype):
    logits_BTV, log_total_BT1 = log_softmax_parts(hidden_BTD, unembed_DV, vocabulary, dtype)
    is_target_BTV = jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2) == targets_BT[..., None]
    target_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0), axis=-1)
    total = jnp.sum((log_total_BT1[..., 0] - target_BT) * weights_BT)
    return total, (logits_BTV, log_total_BT1, is_target_BTV)


def _sum_and_gradient(hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, dtype):
    total, (logits_BTV, log_total_BT1, is_target_BTV) = _sum(
        hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, dtype
    )
    by_logits_BTV = (jnp.exp(logits_BTV - log_total_BT1) - is_target_BTV) * weights_BT[..., None]
    by_logits_NV = by_logits_BTV.astype(hidden_BTD.dtype).reshape(-1, logits_BTV.shape[-1])
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    by_hidden_BTD = (by_logits_NV @ unembed_DV.T).reshape(hidden_BTD.shape)
    by_unembed_DV = jnp.matmul(hidden_ND.T, by_logits_NV, preferred_element_type=jnp.float32)
    return total, by_hidden_BTD, by_unembed_DV


def _chunks(array_BT, positions):
    """Cut the second axis: `(B, T, …)` → `(T / positions, B, positions, …)`; rows stay on their devices."""
    rows, length, *rest = array_BT.shape
    return array_BT.reshape(rows, length // positions, positions, *rest).swapaxes(0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _chunked(hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, positions, dtype):
    def body(total, chunk):
        hidden, targets, weights = chunk
        return total + _sum(hidden, unembed_DV, targets, weights, vocabulary, dtype)[0], None

    chunks = tuple(_chunks(array, positions) for array in (hidden_BTD, targets_BT, weights_BT))
    return jax.lax.scan(body, jnp.zeros((), dtype), chunks, unroll=_unroll(chunks))[0]


def _forward(hidden_BTD, unembed_DV, targets_BT, weights_BT, vocabulary, positions, dtype):
    def body(carry, chunk):
        hidden, targets, weights = chunk
        total, by_hidden, by_unembed = _sum_and_gradient(hidden, unembed_DV, targets, weights, vocabulary, dtype)
        return (carry[0] + total, carry[1] + by_unembed), by_hidden

    chunks = tuple(_chunks(array, positions) for array in (hidden_BTD, targets_BT, weights_BT))
    start = (jnp.zeros((), dtype), jnp.zeros(unembed_DV.shape, jnp.float32))
    (total, by_unembed_DV), by_hidden = jax.lax.scan(body, start, chunks, unroll=_unroll(chunks))
    by_hidden_BTD = by_hidden.swapaxes(0, 1).reshape(hidden_BTD.shape)
    return total, (by_hidden_BTD, by_unembed_DV.astype(unembed_DV.dtype))


def _unroll(chunks):
    """A scan of one chunk is no loop."""
    return len(chunks[0]) == 1


def _backward(vocabulary, positions, dtype, gradients, cotangent):
    by_hidden_BTD, by_unembed_DV = gradients
    scale = lambda gradient: gradient * cotangent.astype(gradient.dtype)
    return scale(by_hidden_BTD), scale(by_unembed_DV), None, None


_chunked.defvjp(_forward, _backward)
