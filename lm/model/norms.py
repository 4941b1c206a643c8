"""Hidden states, or a head's queries, in; the same normalised over their last axis out."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """(x − mean) / √(variance + ε) · scale + bias (Ba et al. 2016, arXiv 1607.06450), computed in norm_dtype."""

    config: object

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        parameter = lambda name, initial: self.param(name, initial, hidden.shape[-1:], jnp.dtype(c.parameter_dtype))
        x = hidden.astype(c.norm_dtype)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        x = x * jnp.expand_dims(parameter("scale", nn.initializers.ones), tuple(range(x.ndim - 1)))
        if c.bias:
            x = x + jnp.expand_dims(parameter("bias", nn.initializers.zeros), tuple(range(x.ndim - 1)))
        return x.astype(c.dtype)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · scale (Zhang & Sennrich 2019, arXiv 1910.07467), computed in norm_dtype."""

    config: object

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        scale = self.param("scale", nn.initializers.ones, hidden.shape[-1:], jnp.dtype(c.parameter_dtype))
        x = hidden.astype(c.norm_dtype)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        return (x * jnp.expand_dims(scale, tuple(range(x.ndim - 1)))).astype(c.dtype)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}
