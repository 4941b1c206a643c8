"""Logits in, logits out, composed; and the draw of a token from them. All are `(B, V)` float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Settings(NamedTuple):
    """What a draw depends on: the fields of the sample section that a compiled program is made for."""

    temperature: float
    top_k: int
    top_p: float


def temperature(logits_BV, value: float):
    """Divide by the temperature: below 1 sharpens, above 1 flattens."""
    return logits_BV / value


def top_k(logits_BV, count: int):
    """Keep the `count` likeliest tokens (Fan et al. 2018, arXiv 1805.04833); ties with the last are kept."""
    least_B1 = jax.lax.top_k(logits_BV, min(count, logits_BV.shape[-1]))[0][:, -1:]
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)


def top_p(logits_BV, share: float):
    """Keep the likeliest tokens whose probabilities first reach `share` (Holtzman et al. 2019, arXiv 1904.09751)."""
    ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    shares_BV = jax.nn.softmax(ordered_BV, axis=-1)
    before_BV = jnp.cumsum(shares_BV, axis=-1) - shares_BV
    least_B1 = jnp.min(jnp.where(before_BV < share, ordered_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)


def draw(key, logits_BV, settings: Settings):
    """Return a token id per row, int32 `(B,)`: temperature, then top-k, then top-p, then a draw.

    Args:
      key: of the draw.
      settings: temperature 0 takes the likeliest token, top_k 0 and top_p 1 keep all.
    """
    if settings.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = temperature(logits_BV, settings.temperature)
    if settings.top_k:
        logits_BV = top_k(logits_BV, settings.top_k)
    if settings.top_p < 1:
        logits_BV = top_p(logits_BV, settings.top_p)
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
