"""Hidden states in, the same normalised over their width out."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """(x − mean) / √(variance + ε) · scale + bias (Ba et al. 2016, arXiv 1607.06450), computed in norm_dtype."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        dtype = jnp.dtype(c.parameter_dtype)
        scale_D = self.param("scale", nn.initializers.ones, hidden_BTD.shape[-1:], dtype)
        x = hidden_BTD.astype(c.norm_dtype)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        x = x * scale_D[None, None]
        if c.bias:
            bias_D = self.param("bias", nn.initializers.zeros, hidden_BTD.shape[-1:], dtype)
            x = x + bias_D[None, None]
        return x.astype(c.dtype)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · scale (Zhang & Sennrich 2019, arXiv 1910.07467), computed in norm_dtype."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        scale_D = self.param("scale", nn.initializers.ones, hidden_BTD.shape[-1:], jnp.dtype(c.parameter_dtype))
        x = hidden_BTD.astype(c.norm_dtype)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.norm_epsilon)
        return (x * scale_D[None, None]).astype(c.dtype)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}
