"""Hidden states, the head's weights and targets in; sums of losses and of weights out."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.objective.routing import routed


class Logits(NamedTuple):
    """How hidden states become logits: hidden · unembed in `dtype`, capped; ids from `vocabulary` on are padding.

    soft_cap: logits become cap · tanh(logits / cap) (Gemma 2, arXiv 2408.00118, §2); 0: they stay.
    by_rows: (function of what rows share and of rows) → the same, run by each device on its rows.
    """

    vocabulary: int
    dtype: str = "float32"
    soft_cap: float = 0.0
    by_rows: Callable = lambda function: function


class Extras(NamedTuple):
    """What is added to −log p(target) in training.

    smoothing: ε of the target's share goes to all ids alike (Szegedy et al. 2016, arXiv 1512.00567, §7).
    z: · log² of the softmax's denominator (PaLM: Chowdhery et al. 2022, arXiv 2204.02311, §5).
    """

    smoothing: float = 0.0
    z: float = 0.0


NO_EXTRAS = Extras()


class Rows(NamedTuple):
    """Sums of each row, `(B,)`: of −log p(target), of weights, and of the weights of targets that are the likeliest id.

    correct: is counted only where it is asked for, and is 0 elsewhere. routed: routing.Routed, sums of all rows; None
    without experts.
    """

    nats: Any
    weights: Any
    correct: Any = None
    routed: Any = None


def logits_of(model) -> Logits:
    """Return how a model's logits come about, of ids or of labels; `model` is config.model, resolved and bound."""
    return Logits(model.labels or model.vocabulary, model.logits_dtype, model.logits_soft_cap)


def scored(out, targets_BT, weights_BT, logits: Logits, section, key):
    """Return what `cross_entropy` does of a model's Output: in training with the section's extras, else counting.

    And with what keeps experts in use, where the model has any.

    Args:
      out: the Output.
      targets_BT: int32 ids below the vocabulary.
      weights_BT: how much each target counts.
      logits: how they come about.
      section: config.objective.
      key: of training; None: to evaluate.
    """
    extras = NO_EXTRAS if key is None else Extras(section.label_smoothing, section.z_loss)
    sums = cross_entropy(
        out.hidden,
        out.unembed,
        targets_BT,
        weights_BT,
        logits,
        section.chunk_tokens,
        extras,
        bias_V=out.unembed_bias,
        is_counting=key is None,
    )
    return routed(sums, out.routing, section, key)


def loss(section, logits: Logits, count: int | None = None):
    """Return an Objective's loss: what `scored` does of a batch's targets, or of the `count` weightiest of each row."""

    def scored_batch(forward, params, batch, key):
        found = forward(params, batch, key), batch.targets, batch.weights
        return scored(*(found if count is None else chosen(*found, count)), logits, section, key)

    return scored_batch


def chosen(out, targets_BT, weights_BT, count: int):
    """Return an Output, targets and weights at the `count` weightiest places of each row: the others need no logits."""
    weights, places = jax.lax.top_k(weights_BT, count)
    hidden = jnp.take_along_axis(out.hidden, places[..., None], axis=1)
    return out._replace(hidden=hidden), jnp.take_along_axis(targets_BT, places, axis=1), weights


def cross_entropy(
    hidden_BTD,
    unembed_DV,
    targets_BT,
    weights_BT,
    logits: Logits,
    chunk_tokens: int,
    extras: Extras = NO_EXTRAS,
    bias_V=None,
    is_counting: bool = False,
):
    """Return (sum of losses in nats, sum of weights, Rows).

    Logits of at most `chunk_tokens` tokens (of at least one position of every row) exist at once, in the
    backward pass too: the gradient is made together with the loss, as softmax − one-hot. Only the first result
    has a gradient; the rows' sums are for looking at, and leave out the extras.

    Args:
      hidden_BTD: final hidden states.
      unembed_DV: the head.
      targets_BT: int32 ids below the vocabulary.
      weights_BT: how much each target counts.
      logits: how they come about.
      chunk_tokens: most tokens whose logits exist at once.
      extras: what the loss adds.
      bias_V: of the head, or None.
      is_counting: count the targets that are the likeliest id.
    """
    rows, length = targets_BT.shape
    positions = max(1, min(length, chunk_tokens // rows))
    while length % positions:
        positions -= 1
    weights_BT = weights_BT.astype(jnp.float32)

    def chunked(head, rows):
        hidden_BTD, targets_BT, weights_BT = rows
        total, *sums_B = _chunked(hidden_BTD, *head, targets_BT, weights_BT, positions, logits, extras, is_counting)
        return total[None], *sums_B

    # A device's own, since the gradient of the head would else be added over devices in every chunk.
    totals, nats_B, correct_B = logits.by_rows(chunked)((unembed_DV, bias_V), (hidden_BTD, targets_BT, weights_BT))
    weights_B = jnp.sum(weights_BT, axis=1)
    return jnp.sum(totals), jnp.sum(weights_B), Rows(nats_B, weights_B, correct_B)


def log_softmax_parts(hidden, unembed_DV, logits: Logits, bias_V=None):
    """Return logits `(…, V)` with padding at −∞, and the log of their summed exponentials `(…, 1)`."""
    flat = jnp.matmul(hidden.reshape(-1, hidden.shape[-1]), unembed_DV, preferred_element_type=jnp.float32)
    if bias_V is not None:
        flat = flat + bias_V.astype(jnp.float32)[None]
    return parts_of(flat.reshape(*hidden.shape[:-1], -1), logits)


def parts_of(products, logits: Logits):
    """Return what log_softmax_parts does of hidden · unembed + bias, float32 `(…, V)`."""
    values = products.astype(logits.dtype)
    if logits.soft_cap:
        values = logits.soft_cap * jnp.tanh(values / logits.soft_cap)
    if logits.vocabulary < values.shape[-1]:
        values = jnp.where(_is_padding(values, logits), -jnp.inf, values)
    return values, jax.nn.logsumexp(values, axis=-1, keepdims=True)


def _is_padding(values, logits: Logits):
    return jax.lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 1) >= logits.vocabulary


def _sum(hidden_BTD, unembed_DV, bias_V, targets_BT, weights_BT, logits: Logits, extras: Extras, is_counting: bool):
    logits_BTV, log_total_BT1 = log_softmax_parts(hidden_BTD, unembed_DV, logits, bias_V)
    is_target_BTV = jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2) == targets_BT[..., None]
    log_total_BT = log_total_BT1[..., 0]
    target_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0), axis=-1)
    loss_BT = nats_BT = log_total_BT - target_BT
    if extras.smoothing:
        mean_BT = jnp.sum(jnp.where(_is_padding(logits_BTV, logits), 0, logits_BTV), axis=-1) / logits.vocabulary
        loss_BT = loss_BT + extras.smoothing * (target_BT - mean_BT)
    if extras.z:
        loss_BT = loss_BT + extras.z * jnp.square(log_total_BT)
    # Sums of many tokens are float32 whatever the logits are: bfloat16 ends to count at 256.
    correct_B = jnp.zeros(len(weights_BT), weights_BT.dtype)
    if is_counting:
        correct_B = jnp.sum((jnp.argmax(logits_BTV, axis=-1) == targets_BT) * weights_BT, axis=1)
    sums = jnp.sum(loss_BT * weights_BT), jnp.sum(nats_BT * weights_BT, axis=1), correct_B
    return sums, (logits_BTV, log_total_BT1, is_target_BTV)


def _sum_and_gradient(hidden_BTD, unembed_DV, bias_V, targets_BT, weights_BT, logits, extras, is_counting):
    sums, (logits_BTV, log_total_BT1, is_target_BTV) = _sum(
        hidden_BTD, unembed_DV, bias_V, targets_BT, weights_BT, logits, extras, is_counting
    )
    share_BTV = jnp.exp(logits_BTV - log_total_BT1)
    if extras.z:
        share_BTV = share_BTV * (1 + 2 * extras.z * log_total_BT1)
    by_logits_BTV = share_BTV - (1 - extras.smoothing) * is_target_BTV
    if extras.smoothing:
        by_logits_BTV = by_logits_BTV - extras.smoothing / logits.vocabulary
    if logits.soft_cap:
        by_logits_BTV = by_logits_BTV * (1 - jnp.square(logits_BTV / logits.soft_cap))
    if (extras.smoothing or logits.soft_cap) and logits.vocabulary < logits_BTV.shape[-1]:
        by_logits_BTV = jnp.where(_is_padding(logits_BTV, logits), 0, by_logits_BTV)
    by_logits_BTV = by_logits_BTV * weights_BT[..., None]
    by_bias_V = None if bias_V is None else jnp.sum(by_logits_BTV, axis=(0, 1), dtype=jnp.float32)
    by_logits_NV = by_logits_BTV.astype(hidden_BTD.dtype).reshape(-1, logits_BTV.shape[-1])
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    by_hidden_BTD = (by_logits_NV @ unembed_DV.T).reshape(hidden_BTD.shape)
    by_unembed_DV = jnp.matmul(hidden_ND.T, by_logits_NV, preferred_element_type=jnp.float32)
    return sums, by_hidden_BTD, (by_unembed_DV, by_bias_V)


def _chunks(array_BT, positions):
    """Cut the second axis: `(B, T, …)` → `(T / positions, B, positions, …)`; rows stay on their devices."""
    rows, length, *rest = array_BT.shape
    return array_BT.reshape(rows, length // positions, positions, *rest).swapaxes(0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def _chunked(hidden_BTD, unembed_DV, bias_V, targets_BT, weights_BT, positions, logits, extras, is_counting):
    def body(sums, chunk):
        hidden, targets, weights = chunk
        found = _sum(hidden, unembed_DV, bias_V, targets, weights, logits, extras, is_counting)[0]
        return jax.tree.map(jnp.add, sums, found), None

    chunks = tuple(_chunks(array, positions) for array in (hidden_BTD, targets_BT, weights_BT))
    return jax.lax.scan(body, _no_sums(weights_BT), chunks, unroll=_unroll(chunks))[0]


def _forward(hidden_BTD, unembed_DV, bias_V, targets_BT, weights_BT, positions, logits, extras, is_counting):
    def body(carry, chunk):
        hidden, targets, weights = chunk
        sums, by_hidden, by_head = _sum_and_gradient(
            hidden, unembed_DV, bias_V, targets, weights, logits, extras, is_counting
        )
        return jax.tree.map(jnp.add, carry, (sums, by_head)), by_hidden

    chunks = tuple(_chunks(array, positions) for array in (hidden_BTD, targets_BT, weights_BT))
    head = unembed_DV, bias_V
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), head)
    (sums, by_head), by_hidden = jax.lax.scan(body, (_no_sums(weights_BT), zeros), chunks, unroll=_unroll(chunks))
    by_hidden_BTD = by_hidden.swapaxes(0, 1).reshape(hidden_BTD.shape)
    return sums, (by_hidden_BTD, *jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), by_head, head))


def _no_sums(weights_BT):
    zeros_B = jnp.zeros(len(weights_BT), weights_BT.dtype)
    return jnp.zeros((), weights_BT.dtype), zeros_B, zeros_B


def _unroll(chunks):
    """A scan of one chunk is no loop."""
    return len(chunks[0]) == 1


def _backward(positions, logits, extras, is_counting, gradients, cotangents):
    scale = lambda gradient: gradient * cotangents[0].astype(gradient.dtype)
    return *jax.tree.map(scale, gradients), None, None


_chunked.defvjp(_forward, _backward)
