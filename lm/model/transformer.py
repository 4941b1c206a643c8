"""Token ids in; hidden states, the head's weights and the cache out: embed → stack of blocks → head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from lm.model import attend as attends
from lm.model import masks
from lm.model.block import Context
from lm.model.init import initializer
from lm.model.positions import ADDED, BIASES
from lm.model.stack import Stack


class Output(NamedTuple):
    """hidden: `(B, T, D)`, normalised. unembed: `(D, V padded)`; logits are their product. cache: as given, filled."""

    hidden: Any
    unembed: Any
    cache: Any


def padded(vocabulary: int, multiple: int) -> int:
    """Return the number of rows of the embedding."""
    return -(-vocabulary // multiple) * multiple


class Embed(nn.Module):
    """Ids → vectors, `(V padded, D)`."""

    config: object
    constrain: Callable

    @nn.compact
    def __call__(self, inputs_BT):
        c = self.config
        shape = (padded(c.vocabulary, c.vocabulary_multiple), c.width)
        initial = initializer(c, "embedding", c.width)
        embedding_VD = self.param("embedding", initial, shape, jnp.dtype(c.parameter_dtype))
        embedding_VD = self.constrain(embedding_VD, "embedding")
        # Cast after the look-up, so that the gradient of a frequent id is summed in the parameters' dtype.
        return embedding_VD[inputs_BT].astype(c.dtype), embedding_VD.astype(c.dtype)


class Head(nn.Module):
    """The weights that turn hidden states into logits, `(D, V padded)`."""

    config: object

    @nn.compact
    def __call__(self):
        c = self.config
        shape = (c.width, padded(c.vocabulary, c.vocabulary_multiple))
        kernel = self.param("kernel", initializer(c, "in", c.width), shape, jnp.dtype(c.parameter_dtype))
        return kernel.astype(c.dtype)


class TokenValues(nn.Module):
    """Ids → what attention adds to its values, `(tables, B, T, K, C)`; layer l reads table l modulo their number."""

    config: object
    constrain: Callable

    @nn.compact
    def __call__(self, inputs_BT):
        c = self.config
        rows = padded(c.vocabulary, c.vocabulary_multiple)
        shape = (c.value_embeddings, rows, c.kv_heads * c.head_width)
        initial = initializer(c, "embedding", c.width)
        tables = self.param("embedding", initial, shape, jnp.dtype(c.parameter_dtype))
        tables = self.constrain(tables, "embedding")
        values = tables[:, inputs_BT].astype(c.dtype)
        return values.reshape(c.value_embeddings, *inputs_BT.shape, c.kv_heads, c.head_width)


class Transformer(nn.Module):
    """A decoder (Radford et al. 2019; Touvron et al. 2023), defined by its config section alone.

    config: config.model, resolved and bound.
    attend: one of lm/model/attend.py.
    constrain: (array, name) → array, placing named activations on a mesh; the identity without one.
    """

    config: object
    attend: Callable = attends.einsum
    constrain: Callable = lambda array, name: array

    @nn.compact
    def __call__(self, inputs_BT, positions_BT, segments_BT=None, cache=None, train=False) -> Output:
        """Return the Output.

        Args:
          inputs_BT: int32 ids.
          positions_BT: int32, a token's place in its record; with a cache, also its slot.
          segments_BT: int32, which record each token belongs to; needed without a cache.
          cache: None, or a Cache that the positions are written to and read from.
          train: apply dropout; needs the rng `dropout` when a rate is not 0.
        """
        c = self.config
        hidden_BTD, embedding_VD = Embed(c, self.constrain, name="embed")(inputs_BT)
        # Tokens left out whole, each by itself (Gal & Ghahramani 2016, arXiv 1512.05287, §4.2, leave out words).
        hidden_BTD = nn.Dropout(c.token_dropout, broadcast_dims=(2,), deterministic=not train)(hidden_BTD)
        if c.positions in ADDED:
            hidden_BTD = hidden_BTD + ADDED[c.positions](c, name="positions")(positions_BT)
        hidden_BTD = nn.Dropout(c.dropout, deterministic=not train)(hidden_BTD)
        hidden_BTD = self.constrain(hidden_BTD, "hidden")
        context = Context(
            positions=positions_BT,
            mask=masks.causal(segments_BT) if cache is None else masks.cached(positions_BT, cache.key.shape[2]),
            bias=BIASES[c.positions](c, name="positions")() if c.positions in BIASES else None,
            embedded=hidden_BTD,
            token_values=TokenValues(c, self.constrain, name="values")(inputs_BT) if c.value_embeddings else None,
            train=train,
        )
        hidden_BTD, cache = Stack(c, self.attend, self.constrain, name="decoder")(hidden_BTD, context, cache)
        unembed_DV = embedding_VD.T if c.tied else Head(c, name="head")()
        return Output(hidden_BTD, unembed_DV, cache)
