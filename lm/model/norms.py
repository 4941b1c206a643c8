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
        x = hidden.astype(c.norm_dtype)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        x = x * _scale(self, x)
        if c.bias:
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.dtype(c.parameter_dtype))
            x = x + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))
        return x.astype(c.dtype)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · scale (Zhang & Sennrich 2019, arXiv 1910.07467), computed in norm_dtype."""

    config: object

    @nn.compact
    def __call__(self, hidden):
        c = self.config
        x = hidden.astype(c.norm_dtype)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        return (x * _scale(self, x)).astype(c.dtype)


def _scale(norm: nn.Module, x):
    """Return the learned scale of x's last axis, 1 at first: the parameter, or with unit_offset 1 + the parameter."""
    c = norm.config
    initial = nn.initializers.zeros if c.unit_offset else nn.initializers.ones
    scale = norm.param("scale", initial, x.shape[-1:], jnp.dtype(c.parameter_dtype))
    scale = 1 + scale.astype(c.norm_dtype) if c.unit_offset else scale
    return jnp.expand_dims(scale, tuple(range(x.ndim - 1)))


NORMS = {"layer": LayerNorm, "rms": RMSNorm}
