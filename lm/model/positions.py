"""How order enters: added to the embedding (learned) or turned into queries and keys (rotary)."""

import flax.linen as nn
import jax.numpy as jnp


class Learned(nn.Module):
    """A vector per position, `(context, D)`, added to the embedding (Gehring et al. 2017; GPT-2)."""

    config: object

    @nn.compact
    def __call__(self, positions_BT):
        c = self.config
        initializer = nn.initializers.normal(c.init_std)
        embedding = self.param("embedding", initializer, (c.context, c.width), jnp.dtype(c.parameter_dtype))
        return embedding.astype(c.dtype)[positions_BT]


def rotate(x_BTHC, positions_BT, base: float):
    """Turn each pair (i, i + C/2) of a head by position · base^(−2i/C) (Su et al. 2021, arXiv 2104.09864, §3.2.2).

    Pairs halves of the head, as Llama's published weights do; angles are float32.
    """
    half = x_BTHC.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = x_BTHC[..., :half].astype(jnp.float32), x_BTHC[..., half:].astype(jnp.float32)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x_BTHC.dtype)
