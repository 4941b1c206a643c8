"""Prompts in, next tokens out, on the device: one program that reads a prompt, one that adds tokens to it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.generate import samplers
from lm.model import cache as caches
from lm.model.transformer import Tokens
from lm.objective.losses import log_softmax_parts, logits_of


class Reading(NamedTuple):
    """What has been read so far: the cache, `lengths` `(B,)` and the logits of each row's next token `(B, V)`."""

    cache: Any
    lengths: Any
    logits: Any


def _read(model, params, ids_BT, positions_BT, cache, last_B, encoder=None, prefix_BS=None):
    """Return the cache, and the next token's logits after position `last_B` of the ids given, float32 `(B, V)`."""
    logits = logits_of(model.config)._replace(dtype="float32")
    out = model.apply({"params": params}, ids_BT, positions_BT, cache=cache, encoder=encoder, prefix_BT=prefix_BS)
    hidden_BD = jnp.take_along_axis(out.hidden, last_B[:, None, None], axis=1)[:, 0]
    logits_BV, log_total_B1 = log_softmax_parts(hidden_BD, out.unembed, logits, out.unembed_bias)
    return out.cache, (logits_BV - log_total_B1)[:, : model.config.vocabulary]


@partial(jax.jit, static_argnums=(0, 5), static_argnames="slots")
def prefill(model, params, ids_BT, lengths_B, start=0, has_prefix=False, slots=0) -> Reading:
    """Read prompts, padded on the right to one length, into a new cache of so many slots; 0: of the model's context.

    An encoder_decoder's encoder reads them, once; its decoder reads `start`, the id that it begins with. A decoder
    that has learned with a prefix sees all of its prompt at once.
    """
    rows, length = ids_BT.shape
    slots = slots or model.config.context
    cache = caches.empty(model.config, rows, slots)
    positions_BT = jnp.broadcast_to(jnp.arange(length), ids_BT.shape)
    encoder = None
    prefix_BS = jnp.arange(slots)[None] < lengths_B[:, None] if has_prefix else None
    if model.config.architecture == "encoder_decoder":
        is_text_BT = positions_BT < lengths_B[:, None]
        encoder = Tokens(ids_BT, positions_BT, is_text_BT.astype(jnp.int32))
        lengths_B = jnp.ones_like(lengths_B)
        ids_BT, positions_BT = jnp.full((rows, 1), start, jnp.int32), jnp.zeros((rows, 1), jnp.int32)
    cache, logits_BV = _read(model, params, ids_BT, positions_BT, cache, lengths_B - 1, encoder, prefix_BS)
    return Reading(cache, lengths_B, logits_BV)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def extend(model, settings, count, params, reading: Reading, key, first):
    """Add `count` tokens to every row, drawn as the settings say.

    Args:
      model: the Transformer. settings: samplers.Settings. count: tokens to add.
      params: its parameters.
      reading: what was read; donated.
      key: of this generation; token number n draws with fold_in(key, n).
      first: number of the first token added.

    Returns:
      The new Reading, tokens int32 `(B, count)`, and their log-probabilities under the model `(B, count)`.
    """

    def step(reading: Reading, number):
        tokens_B = samplers.draw(jax.random.fold_in(key, number), reading.logits, settings)
        scores_B = jnp.take_along_axis(reading.logits, tokens_B[:, None], axis=1)[:, 0]
        positions_B1 = reading.lengths[:, None]
        cache, logits_BV = _read(
            model, params, tokens_B[:, None], positions_B1, reading.cache, jnp.zeros_like(reading.lengths)
        )
        return Reading(cache, reading.lengths + 1, logits_BV), (tokens_B, scores_B)

    reading, (tokens, scores) = jax.lax.scan(step, reading, first + jnp.arange(count))
    return reading, tokens.T, scores.T
