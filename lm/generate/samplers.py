"""Logits in, logits out, composed; and the draw of a token from them. Logits are `(B, V)` float32.

Every number is traced, so that one compiled program serves all settings; what costs much is skipped while it runs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.config.schema import defaults
from lm.text.tokenizer import Tokenizer


class Settings(NamedTuple):
    """What a draw depends on, each a scalar array but `ends`, int32 `(E,)`, of which -1 is none."""

    temperature: Any
    top_k: Any
    top_p: Any
    ends: Any


class Text(NamedTuple):
    """What stands before the token that is drawn.

    ids: int32 `(B, S)`, prompts and what was added. begun, lengths: int32 `(B,)`, where that begins and ends.
    """

    ids: Any
    begun: Any
    lengths: Any


def settings(section: Any, tokenizer: Tokenizer) -> Settings:
    """Return the Settings of a sample section for a tokenizer's ids."""
    ends = sorted(tokenizer.ends)
    ends += [-1] * (-len(ends) % 4)
    number = np.float32
    return Settings(
        number(section.temperature), np.int32(section.top_k), number(section.top_p), np.asarray(ends, np.int32)
    )


def greedy(tokenizer: Tokenizer) -> Settings:
    """Return the Settings that take the likeliest token."""
    section = defaults("sample")
    section.temperature = 0.0
    return settings(section, tokenizer)


def temperature(logits_BV, value):
    """Divide by the temperature: below 1 sharpens, above 1 flattens."""
    return logits_BV / value


def top_k(logits_BV, count):
    """Keep the `count` likeliest tokens (Fan et al. 2018, arXiv 1805.04833); ties with the last are kept."""
    ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    last = jnp.clip(jnp.where(count > 0, count, logits_BV.shape[-1]), 1, logits_BV.shape[-1]) - 1
    return jnp.where(logits_BV >= ordered_BV[:, last][:, None], logits_BV, -jnp.inf)


def top_p(logits_BV, share):
    """Keep the likeliest tokens whose probabilities first reach `share` (Holtzman et al. 2019, arXiv 1904.09751)."""
    ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    shares_BV = jax.nn.softmax(ordered_BV, axis=-1)
    before_BV = jnp.cumsum(shares_BV, axis=-1) - shares_BV
    least_B1 = jnp.min(jnp.where(before_BV < share, ordered_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where((logits_BV >= least_B1) | (share >= 1), logits_BV, -jnp.inf)


def adjusted(logits_BV, text: Text, settings: Settings):
    """Return the logits of which the likeliest is taken at temperature 0: penalties, bans and biases applied."""
    return logits_BV


def warped(logits_BV, settings: Settings):
    """Return the logits that a token is drawn from at a temperature above 0: temperature, top-k, top-p, min-p."""
    logits_BV = temperature(logits_BV, jnp.where(settings.temperature > 0, settings.temperature, 1))
    is_cut = (settings.top_k > 0) | (settings.top_p < 1)
    cut = lambda logits_BV: top_p(top_k(logits_BV, settings.top_k), settings.top_p)
    return jax.lax.cond(is_cut, cut, lambda logits_BV: logits_BV, logits_BV)


def draw(keys_B, logits_BV, text: Text, settings: Settings):
    """Return a token id per row, int32 `(B,)`, each drawn by its row's key; at temperature 0 the likeliest."""
    logits_BV = adjusted(logits_BV, text, settings)
    drawn = lambda: jax.vmap(jax.random.categorical)(keys_B, warped(logits_BV, settings))
    return jax.lax.cond(settings.temperature > 0, drawn, lambda: jnp.argmax(logits_BV, axis=-1)).astype(jnp.int32)
