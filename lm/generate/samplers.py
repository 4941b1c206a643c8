"""Logits in, logits out, composed; and the draw of a token from them. Logits are `(B, V)` float32.

Every number is traced, so that one compiled program serves all settings, and what costs much is skipped while it is
off. Sizes of arrays are powers of two: of up to 4 ends and up to 16 phrases (biased or banned) of up to 8 tokens
there is one program, and another for each time that one of these three doubles.

The order is Transformers': biases, repetition, frequency and presence (which it lacks; here as in vLLM), n-grams, bans,
ends; then, of a draw, temperature, top-k, top-p, min-p. A ban stands with the biases: nothing undoes it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.config.field import split
from lm.generate import penalties
from lm.generate.penalties import MOST, Text
from lm.refusal import Refusal
from lm.text.tokenizer import Tokenizer

_ENDS, _PHRASES, _TOKENS = 4, 16, 8  # the least sizes of arrays
_REAL, _WHOLE = np.finfo(np.float32), np.iinfo(np.int32)


class Settings(NamedTuple):
    """What a draw depends on: the sample section's numbers, scalar arrays, and ids; as they stand here all are off.

    ends: int32 `(E,)`, -1 for none. phrases: int32 `(N, L)`, ids with -1 before them. biases: float32 `(N,)`, what is
    added to the last id of each where the others stand before it; -inf bans it.
    """

    temperature: Any = np.float32(0)
    top_k: Any = np.int32(0)
    top_p: Any = np.float32(1)
    min_p: Any = np.float32(0)
    repetition_penalty: Any = np.float32(1)
    frequency_penalty: Any = np.float32(0)
    presence_penalty: Any = np.float32(0)
    no_repeat_ngram: Any = np.int32(0)
    min_new_tokens: Any = np.int32(0)
    ends: Any = np.full(_ENDS, -1, np.int32)
    phrases: Any = np.full((_PHRASES, _TOKENS), -1, np.int32)
    biases: Any = np.zeros(_PHRASES, np.float32)


_NUMBERS = {name: type(value) for name, value in Settings._field_defaults.items() if np.ndim(value) == 0}

# In this order: whether it is on, and what it does.
_ADJUSTMENTS = (
    (
        lambda s: (s.phrases[:, -1] >= 0).any(),
        lambda logits_BV, s, text: penalties.biased(logits_BV, text, s.phrases, s.biases),
    ),
    (
        lambda s: s.repetition_penalty != 1,
        lambda logits_BV, s, text: penalties.less_repeated(logits_BV, text, s.repetition_penalty),
    ),
    (
        lambda s: (s.frequency_penalty != 0) | (s.presence_penalty != 0),
        lambda logits_BV, s, text: penalties.less_frequent(logits_BV, text, s.frequency_penalty, s.presence_penalty),
    ),
    (
        lambda s: s.no_repeat_ngram > 0,
        lambda logits_BV, s, text: penalties.without_ngrams(logits_BV, text, s.no_repeat_ngram),
    ),
    (
        lambda s: s.min_new_tokens > 0,
        lambda logits_BV, s, text: penalties.not_ended(logits_BV, text, s.min_new_tokens, s.ends),
    ),
)
_CUTS = (
    (lambda s: s.top_k > 0, lambda logits_BV, s: top_k(logits_BV, s.top_k)),
    (lambda s: s.top_p < 1, lambda logits_BV, s: top_p(logits_BV, s.top_p)),
    (lambda s: s.min_p > 0, lambda logits_BV, s: min_p(logits_BV, s.min_p)),
)


def settings(section: Any, tokenizer: Tokenizer) -> Settings:
    """Return the Settings of a sample section for a tokenizer's ids.

    Raises:
      Refusal: a text to bias or to ban of which the tokenizer makes no token.
    """
    chosen = [(_ids(tokenizer, text, "logit_bias"), bias) for text, bias in split(section.logit_bias)]
    chosen += [(ids, -np.inf) for text in section.banned for ids in _spellings(tokenizer, text)]
    count, longest = _doubled(_PHRASES, len(chosen)), _doubled(_TOKENS, *(len(ids) for ids, _ in chosen))
    phrases, biases = np.full((count, longest), -1, np.int32), np.zeros(count, np.float32)
    for index, (ids, bias) in enumerate(chosen):
        phrases[index, -len(ids) :], biases[index] = ids, bias
    numbers = {name: _number(section[name], kind) for name, kind in _NUMBERS.items()}
    return greedy(tokenizer)._replace(**numbers, phrases=phrases, biases=biases)


def greedy(tokenizer: Tokenizer) -> Settings:
    """Return the Settings that take the likeliest token, whatever the text."""
    ends = np.full(_doubled(_ENDS, len(tokenizer.ends)), -1, np.int32)
    ends[: len(tokenizer.ends)] = sorted(tokenizer.ends)
    return Settings(ends=ends)


def is_plain(settings: Settings) -> bool:
    """Say whether settings of numbers change nothing but the temperature."""
    return not any(is_on(settings) for is_on, *_ in (*_ADJUSTMENTS, *_CUTS))


def temperature(logits_BV, value):
    """Divide by the temperature the distances to the likeliest: below 1 sharpens, above 1 flattens."""
    return (logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)) / value


def top_k(logits_BV, count):
    """Keep the `count` likeliest tokens (Fan et al. 2018, arXiv 1805.04833); ties with the last are kept."""
    return _likeliest(logits_BV, jnp.ones_like(logits_BV), jnp.float32(count))


def top_p(logits_BV, share):
    """Keep the likeliest tokens whose probabilities first reach `share` (Holtzman et al. 2019, arXiv 1904.09751)."""
    shares_BV = jax.nn.softmax(logits_BV, axis=-1)
    return _likeliest(logits_BV, shares_BV, share * jnp.sum(shares_BV, axis=-1))


def min_p(logits_BV, share):
    """Keep tokens at least `share` as probable as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""
    return jnp.where(jnp.exp(temperature(logits_BV, 1)) >= share, logits_BV, -jnp.inf)


def adjusted(logits_BV, text: Text, settings: Settings):
    """Return the logits of which the likeliest is taken at temperature 0: penalties, bans and biases applied.

    Of every row at least one is above -inf: where all tokens are banned, the ends are not.
    """
    before_BV = logits_BV = jnp.minimum(logits_BV, MOST)
    logits_BV = _changed(_ADJUSTMENTS, logits_BV, settings, text)
    return penalties.possible(logits_BV, before_BV, settings.ends)


def warped(logits_BV, settings: Settings, is_plain=False):
    """Return the logits that a token is drawn from at a temperature above 0; the likeliest's is 0."""
    logits_BV = temperature(logits_BV, jnp.where(settings.temperature > 0, settings.temperature, 1))
    return logits_BV if is_plain else _changed(_CUTS, logits_BV, settings)


def draw(keys_B, logits_BV, text: Text, settings: Settings, is_plain=False):
    """Return a token id per row, int32 `(B,)`, each drawn by its row's key; at temperature 0 the likeliest.

    Where it is said that all else is off, this is half the program.
    """
    logits_BV = logits_BV if is_plain else adjusted(logits_BV, text, settings)
    drawn = lambda: jax.vmap(draw_one)(keys_B, warped(logits_BV, settings, is_plain))
    return jax.lax.cond(settings.temperature > 0, drawn, lambda: jnp.argmax(logits_BV, axis=-1)).astype(jnp.int32)


def log_probabilities(logits_BV, text: Text, settings: Settings):
    """Return the natural logs of the probabilities `(B, V)` of what `draw` returns."""
    logits_BV = adjusted(logits_BV, text, settings)
    likeliest_B1 = jnp.argmax(logits_BV, axis=-1, keepdims=True)
    is_likeliest_BV = jnp.arange(logits_BV.shape[-1])[None] == likeliest_B1
    sure = lambda: jnp.where(is_likeliest_BV, jnp.zeros_like(logits_BV), -jnp.inf)
    drawn = lambda: jax.nn.log_softmax(warped(logits_BV, settings), axis=-1)
    return jax.lax.cond(settings.temperature > 0, drawn, sure)


def _changed(changes, logits_BV, settings: Settings, *text):
    """Return the logits after those changes that are on; where none is, only that is asked."""
    is_on = [is_on(settings) for is_on, _ in changes]
    as_is = lambda logits_BV, *_: logits_BV

    def change_some(logits_BV, *more):
        for is_one_on, (_, change) in zip(is_on, changes, strict=True):
            logits_BV = jax.lax.cond(is_one_on, change, as_is, logits_BV, *more)
        return logits_BV

    return jax.lax.cond(jnp.any(jnp.stack(is_on)), change_some, as_is, logits_BV, settings, *text)


def draw_one(key, logits_V):
    """Draw a block of the vocabulary by its mass, then a token of it: 2√V random numbers, not V."""
    size = math.isqrt(len(logits_V)) + 1
    blocks = jnp.pad(logits_V, (0, -len(logits_V) % size), constant_values=-jnp.inf).reshape(-1, size)
    block_key, token_key = jax.random.split(key)
    block = jax.random.categorical(block_key, jax.nn.logsumexp(blocks, axis=1))
    return block * size + jax.random.categorical(token_key, blocks[block])


def _likeliest(logits_BV, weights_BV, wanted):
    """Keep the fewest likeliest tokens whose weights sum to what is wanted, and ties with the last of them.

    The least logit kept is found by halving, through sums over a row: exact as a sort, and ten times as fast.
    """
    bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
    order_BV = jnp.where(bits_BV < 0, _WHOLE.min - bits_BV, bits_BV)  # as the logits are ordered, -0 like 0

    def halve(_, ends_B):
        low_B, high_B = ends_B
        middle_B = (low_B | high_B) - ((low_B ^ high_B) >> 1)  # rounded up, without overflow
        held_B = jnp.sum(jnp.where(order_BV >= middle_B[:, None], weights_BV, 0), axis=-1)
        is_enough_B = held_B >= jnp.maximum(wanted, _REAL.tiny)
        return jnp.where(is_enough_B, middle_B, low_B), jnp.where(is_enough_B, high_B, middle_B - 1)

    first = jnp.full(len(logits_BV), _WHOLE.min, jnp.int32), jnp.full(len(logits_BV), _WHOLE.max, jnp.int32)
    least_B, _ = jax.lax.fori_loop(0, 32, halve, first)
    return jnp.where(order_BV >= least_B[:, None], logits_BV, -jnp.inf)


def _number(value: float, kind: type) -> Any:
    """Return a number as float32 or int32: the nearest that there is whose inverse there is too, but 0 only of 0."""
    if kind is np.int32:
        return np.int32(min(value, _WHOLE.max))
    size = min(max(abs(value), float(_REAL.tiny)), 1 / float(_REAL.tiny)) if value else 0.0
    return np.float32(math.copysign(size, value))


def _doubled(size: int, *needed: int) -> int:
    """Return the size doubled until it is all that is needed."""
    while size < max(needed, default=0):
        size *= 2
    return size


def _ids(tokenizer: Tokenizer, text: str, name: str) -> tuple[int, ...]:
    """Return the ids of a text that the field of that name has."""
    if ids := tokenizer.encode(text).tolist():
        return tuple(ids)
    raise Refusal(
        f"sample.{name} has {text!r}: the tokenizer {tokenizer.kind!r} makes no token of it, so leave it out."
    )


def _spellings(tokenizer: Tokenizer, text: str) -> list[tuple[int, ...]]:
    """Return the ids of a text as it begins a text, follows a space, and goes on; of those that end alike, one."""
    line, behind = tokenizer.encode("\n").tolist(), tokenizer.encode("\n" + text).tolist()
    found = {_ids(tokenizer, text, "banned"), tuple(tokenizer.encode(" " + text).tolist())}
    if behind[: len(line)] == line:
        found.add(tuple(behind[len(line) :]))
    found -= {()}
    is_needed = lambda ids: not any(ids != other and ids[-len(other) :] == other for other in found)
    return sorted(filter(is_needed, found))
