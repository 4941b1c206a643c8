"""The feed-forward: each position by itself, dense or gated."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.model.dense import Dense, together

ACTIVATIONS = {
    # x · Φ(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415); by erf, which costs half of jax.nn.gelu's erfc
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5)),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # its approximation by tanh (ibid., §2), GPT-2's
    "silu": jax.nn.silu,  # x · σ(x) (ibid.; Ramachandran et al. 2017)
    "relu": jax.nn.relu,  # max(x, 0) (Glorot et al. 2011)
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),  # max(x, 0)² (So et al. 2021, arXiv 2109.08668, §3)
}


class FeedForward(nn.Module):
    """`(B, T, D)` → `(B, T, D)`: act(x·in)·out, or (act(x·gate) ∘ x·in)·out (Shazeer 2020, arXiv 2002.05202)."""

    config: object

    @nn.compact
    def __call__(self, hidden_BTD):
        c = self.config
        inward = lambda name: Dense(c, (c.width,), (c.feedforward_width,), name=name)
        activation = ACTIVATIONS[c.activation]
        if c.gated:
            gate_BTF, inner_BTF = together(hidden_BTD, inward("gate"), inward("in"))
            inner_BTF = activation(gate_BTF) * inner_BTF
        else:
            inner_BTF = activation(inward("in")(hidden_BTD))
        return Dense(c, (c.feedforward_width,), (c.width,), "out", name="out")(inner_BTF)
