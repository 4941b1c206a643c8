"""One block: attention, to an encoder too, and feed-forward, each joined to the residual stream as the wiring says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.model.attention import Attention, CrossAttention
from lm.model.feedforward import FeedForward
from lm.model.moe import MixtureOfExperts
from lm.model.norms import NORMS


class Context(NamedTuple):
    """What every block of a pass reads.

    positions: int32 `(B, T)`. mask: masks.Mask, or None where they go on from a cache. bias: of the scores, or None.
    embedded: what entered the first block, `(B, T, D)`. token_values: of value embeddings, `(tables, B, T, K, C)`, or
    None. train: dropout on. layers: of this stack. segments: `(B, T)`, or None. memory: what an encoder read, (hidden
    `(B, S, D)`, segments `(B, S)`), or None. dispatch: how tokens get to experts, see moe.DISPATCHES.
    """

    positions: Any
    mask: Any
    bias: Any
    embedded: Any
    token_values: Any
    train: bool
    layers: int
    segments: Any = None
    memory: Any = None
    dispatch: str = "ragged"


def _pre(hidden, branches, norm, join):
    """x + f(norm(x)), one branch after the other (GPT-2; Xiong et al. 2020, arXiv 2002.04745)."""
    for name, branch in branches:
        hidden = join(hidden, branch(norm(f"{name}_norm")(hidden)))
    return hidden


def _post(hidden, branches, norm, join):
    """norm(x + f(x)) (Vaswani et al. 2017, §3.1)."""
    for name, branch in branches:
        hidden = norm(f"{name}_norm")(join(hidden, branch(hidden)))
    return hidden


def _sandwich(hidden, branches, norm, join):
    """x + norm(f(norm(x))) (Ding et al. 2021, arXiv 2105.13290, §2.4; Gemma 2)."""
    for name, branch in branches:
        hidden = join(hidden, norm(f"{name}_out_norm")(branch(norm(f"{name}_norm")(hidden))))
    return hidden


def _parallel(hidden, branches, norm, join):
    """x + f(norm(x)) + g(norm(x)), one norm for both (GPT-J; PaLM: Chowdhery et al. 2022, arXiv 2204.02311, §2)."""
    normed = norm("norm")(hidden)
    for _, branch in branches:
        hidden = join(hidden, branch(normed))
    return hidden


def _parallel_norms(hidden, branches, norm, join):
    """x + f(norm(x)) + g(norm'(x)), a norm for each (GPT-NeoX: Black et al. 2022, arXiv 2204.06745, §2.1)."""
    x = hidden
    for name, branch in branches:
        hidden = join(hidden, branch(norm(f"{name}_norm")(x)))
    return hidden


WIRINGS = {
    "pre": _pre,
    "post": _post,
    "sandwich": _sandwich,
    "parallel": _parallel,
    "parallel_norms": _parallel_norms,
}


class Block(nn.Module):
    """`(B, T, D)` → `(B, T, D)`, with one layer's cache in and out, and what its router did out."""

    config: object
    attend: Callable
    constrain: Callable
    by_rows: Callable = lambda function: function

    @nn.compact
    def __call__(self, hidden_BTD, cache, layer, window: int, context: Context):
        """Return hidden states, the cache, and the Routing of a mixture of experts (else None).

        Args:
          hidden_BTD: the residual stream.
          cache: this layer's part of a Cache, or None.
          layer: its number, from 0; may be traced.
          window: places that attention sees; 0: all.
          context: the pass.
        """
        c = self.config
        if c.residual_scalars:  # x ← λ·x + μ·x₀ with λ = 1, μ = 0 at first (modded-nanoGPT)
            scalar = lambda name, initial: self.param(name, initial, (), jnp.dtype(c.parameter_dtype)).astype("float32")
            residual, embedded = nn.initializers.ones, nn.initializers.zeros
            hidden_BTD = scalar("residual_scale", residual) * hidden_BTD
            hidden_BTD = (hidden_BTD + scalar("embedded_scale", embedded) * context.embedded).astype(c.dtype)
        drop = nn.Dropout(c.dropout, deterministic=not context.train)
        leave = lambda branch_BTD: self._kept(drop(branch_BTD), layer, context)
        join = lambda hidden_BTD, branch_BTD: self.constrain(hidden_BTD + leave(branch_BTD), "hidden")

        def attention(x_BTD):
            nonlocal cache
            values = None if context.token_values is None else context.token_values[layer % c.value_embeddings]
            branch_BTD, cache = Attention(c, self.attend, name="attention")(
                x_BTD, context.positions, context.mask, cache, context.bias, values, window or None
            )
            return branch_BTD

        def cross_attention(x_BTD):
            nonlocal cache
            cross = CrossAttention(c, self.attend, name="cross_attention")
            branch_BTD, cache = cross(x_BTD, context.memory, context.segments, cache)
            return branch_BTD

        routing = None

        def experts(x_BTD):
            nonlocal routing
            branch_BTD, routing = MixtureOfExperts(c, self.by_rows, self.constrain, name="feedforward")(
                x_BTD, context.segments, context.dispatch
            )
            return branch_BTD

        branches = [("attention", attention)]
        if context.memory is not None or (cache is not None and cache.memory_key is not None):
            branches.append(("cross_attention", cross_attention))
        branches.append(("feedforward", experts if c.experts else FeedForward(c, name="feedforward")))
        norm = lambda name: NORMS[c.norm](c, name=name)
        hidden_BTD = WIRINGS[c.wiring](hidden_BTD, branches, norm, join)
        return hidden_BTD, cache, routing

    def _kept(self, branch_BTD, layer, context: Context):
        """Leave the branch out for whole rows, at a rate that grows with the layer up to stochastic_depth.

        Huang et al. 2016, arXiv 1603.09382, §3; what is kept is scaled up, so that inference needs no change.
        """
        c = self.config
        if not (context.train and c.stochastic_depth):
            return branch_BTD
        keep = 1 - c.stochastic_depth * (layer + 1) / context.layers
        is_kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (len(branch_BTD), 1, 1))
        return branch_BTD * (is_kept / keep).astype(branch_BTD.dtype)
