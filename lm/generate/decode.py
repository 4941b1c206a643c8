"""Prompts in, next tokens out, on the device: one program that reads prompts, one that adds tokens to them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lm.generate import samplers
from lm.model import cache as caches
from lm.model import rolling
from lm.model.dense import times_rows
from lm.model.transformer import Tokens
from lm.model.whole import Whole
from lm.objective.losses import logits_of, parts_of


class Reading(NamedTuple):
    """What has been read and written so far.

    cache: of the model. text: samplers.Text. scores: float32 `(B, S)`, log-probabilities of the tokens added, where
    they stand in the text. logits: of each row's next token, float32 `(B, V)`. is_over: `(B,)`, rows whose text has
    ended.
    """

    cache: Any
    text: samplers.Text
    scores: Any
    logits: Any
    is_over: Any


def look(model, params, ids_BT, positions_BT, cache, last_B=None, **more):
    """Return the cache, and the logits of the tokens that follow all of the ids, float32 `(B, T, V)`.

    Args:
      positions_BT: where the ids stand.
      cache: of what stands before them.
      last_B: places in T of which alone the logits are wanted, which are then `(B, V)`; None: all.
      more: what else the Transformer takes.
    """
    logits = logits_of(model.config)._replace(dtype="float32")
    out = model.apply({"params": params}, ids_BT, positions_BT, cache=cache, **more)
    hidden = out.hidden if last_B is None else jnp.take_along_axis(out.hidden, last_B[:, None, None], axis=1)[:, 0]
    shape = hidden.shape[:-1]
    rows_VD = out.unembed if isinstance(out.unembed, Whole) else out.unembed.T
    products_NV = times_rows(hidden.reshape(-1, hidden.shape[-1]), rows_VD)
    if out.unembed_bias is not None:
        products_NV = products_NV + out.unembed_bias.astype(jnp.float32)[None]
    logits_NV, _ = parts_of(products_NV, logits)
    return out.cache, logits_NV[:, : model.config.vocabulary].reshape(*shape, -1)


def scored(logits, tokens):
    """Return the log-probabilities of tokens `(…)` under logits `(…, V)`."""
    return jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)


@partial(jax.jit, static_argnums=0, static_argnames=("has_prefix", "slots", "copies", "ahead", "room", "cache_dtype"))
def prefill(
    model,
    params,
    ids_BT,
    lengths_B,
    start=0,
    begun=None,
    *,
    slots,
    has_prefix=False,
    copies=1,
    ahead=1,
    room=0,
    sinks=None,
    cache_dtype="model",
) -> Reading:
    """Read prompts, padded on the right to one length, into a new cache of so many slots.

    An encoder_decoder's encoder reads them, once; its decoder reads `start`, the id that it begins with. A decoder
    that has learned with a prefix sees all of its prompt at once.

    Args:
      begun: int32 `(B,)`, places at which the prompts end and what was added to them begins; None: all is prompt.
      copies: rows that go on from each prompt, side by side.
      ahead: most tokens that are read at once later.
      room: for the text, where that is not the cache's.
      sinks: of a cache that rolls (lm/model/rolling.py); None: it does not.
      cache_dtype: as sample.cache_dtype.
    """
    rows, length = ids_BT.shape
    cache = caches.empty(model.config, rows, slots, ahead, sinks, cache_dtype)
    positions_BT = jnp.broadcast_to(jnp.arange(length), ids_BT.shape)
    segments_BT = (positions_BT < lengths_B[:, None]).astype(jnp.int32)
    encoder = None
    if model.config.architecture == "encoder_decoder":
        encoder = Tokens(ids_BT, positions_BT, segments_BT)
        lengths_B = jnp.ones_like(lengths_B)
        ids_BT, positions_BT = jnp.full((rows, 1), start, jnp.int32), jnp.zeros((rows, 1), jnp.int32)
        segments_BT = jnp.ones((rows, 1), jnp.int32)
    cache, logits_BV = look(
        model,
        params,
        ids_BT,
        positions_BT,
        cache,
        lengths_B - 1,
        segments_BT=segments_BT,
        encoder=encoder,
        prefix_BT=positions_BT < (lengths_B if begun is None else begun)[:, None] if has_prefix else None,
    )
    written_BS = jnp.zeros((rows, room or slots), jnp.int32).at[:, : ids_BT.shape[1]].set(ids_BT * segments_BT)
    text = samplers.Text(written_BS, lengths_B if begun is None else begun, lengths_B)
    reading = Reading(cache, text, jnp.zeros(written_BS.shape, jnp.float32), logits_BV, jnp.zeros(rows, bool))
    return repeated(reading, copies)


def repeated(reading: Reading, copies: int) -> Reading:
    """Return the reading with so many rows for each, side by side."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, copies, axis=0), reading) if copies > 1 else reading


@partial(jax.jit, static_argnums=0, donate_argnames="reading")
def read_on(model, params, reading: Reading, ids_BT, lengths_B) -> Reading:
    """Return the reading of prompts that go on with so many of these ids, of a cache that rolls.

    Args:
      ids_BT: at most as many as its slots but for the sinks; padded on the right.
      lengths_B: how many are a row's; 0: none.
    """
    rows, size = reading.text.ids.shape
    numbers_BT = reading.text.lengths[:, None] + jnp.arange(ids_BT.shape[1])[None]
    is_text_BT = jnp.arange(ids_BT.shape[1])[None] < lengths_B[:, None]
    cache, logits_BV = look(
        model,
        params,
        ids_BT,
        jnp.where(is_text_BT, numbers_BT, rolling.NONE),
        reading.cache,
        jnp.maximum(lengths_B - 1, 0),
    )
    places_BT = jnp.where(is_text_BT, numbers_BT, size)
    ids_BS = reading.text.ids.at[jnp.arange(rows)[:, None], places_BT].set(ids_BT, mode="drop")
    text = reading.text._replace(
        ids=ids_BS, begun=reading.text.begun + lengths_B, lengths=reading.text.lengths + lengths_B
    )
    logits_BV = jnp.where(lengths_B[:, None] > 0, logits_BV, reading.logits)
    return reading._replace(cache=cache, text=text, logits=logits_BV)


@partial(jax.jit, static_argnums=0, donate_argnames="reading")
def extend(model, params, reading: Reading, keys, settings: samplers.Settings, count) -> Reading:
    """Add up to `count` tokens to every row that is not over, drawn as the settings say.

    Args:
      model: the Transformer. params: its parameters, ready.
      reading: what was read; donated.
      keys: of the rows; a row's token number n draws with fold_in(its key, n), whatever stands in other rows.
      settings: samplers.Settings.
      count: of tokens; fewer where a row ends before, or is full.
    """

    def is_on(carry):
        number, reading = carry
        return (number < count) & ~jnp.all(is_done(reading))

    def step(carry):
        number, reading = carry
        tokens_B = drawn(reading, keys, settings)
        return number + 1, append(model, params, reading, tokens_B, settings)

    return jax.lax.while_loop(is_on, step, (0, reading))[1]


def coming(reading: Reading, keys, settings: samplers.Settings):
    """Return the token that `extend` will draw next for each row: it can be shown while that is made ready."""
    return _coming(reading, keys, settings, samplers.is_plain(settings))


@partial(jax.jit, static_argnums=3)
def _coming(reading: Reading, keys, settings, is_plain):
    return drawn(reading, keys, settings, is_plain)


def is_done(reading: Reading):
    """Return of each row whether nothing more is added to it: it is over, or full."""
    return reading.is_over | (reading.text.lengths >= reading.text.ids.shape[1])


def drawn(reading: Reading, keys, settings, is_plain=False):
    """Return the token that is drawn for each row."""
    keys = jax.vmap(jax.random.fold_in)(keys, reading.text.lengths - reading.text.begun)
    return samplers.draw(keys, reading.logits, reading.text, settings, is_plain)


def append(model, params, reading: Reading, tokens_B, settings) -> Reading:
    """Return the reading with a token added to each row that is neither over nor full, and read."""
    text, is_done_B = reading.text, is_done(reading)
    rows = jnp.arange(len(tokens_B))
    place_B = jnp.where(is_done_B, text.ids.shape[1], text.lengths)  # there is none for what is done
    scores_B = scored(reading.logits, tokens_B)
    ids_BS = text.ids.at[rows, place_B].set(tokens_B, mode="drop")
    scores_BS = reading.scores.at[rows, place_B].set(scores_B, mode="drop")
    lengths_B = jnp.where(is_done_B, text.lengths, text.lengths + 1)
    is_end_B = ~is_done_B & jnp.any(tokens_B[:, None] == settings.ends[None], axis=1)
    cache, logits_BV = look(
        model, params, tokens_B[:, None], text.lengths[:, None], reading.cache, jnp.zeros_like(lengths_B)
    )
    text = text._replace(ids=ids_BS, lengths=lengths_B)
    return Reading(cache, text, scores_BS, logits_BV, reading.is_over | is_end_B)
