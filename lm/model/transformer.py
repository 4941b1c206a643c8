"""Token ids in; hidden states, the head's weights and the cache out: embed → stack of blocks → head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from lm.model import attend as attends
from lm.model import masks
from lm.model.positions import Learned
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
        initializer = nn.initializers.normal(c.init_std)
        embedding_VD = self.param("embedding", initializer, shape, jnp.dtype(c.parameter_dtype)).astype(c.dtype)
        embedding_VD = self.constrain(embedding_VD, "embedding")
        return embedding_VD[inputs_BT], embedding_VD


class Head(nn.Module):
    """The weights that turn hidden states into logits, `(D, V padded)`."""

    config: object

    @nn.compact
    def __call__(self):
        c = self.config
        shape = (c.width, padded(c.vocabulary, c.vocabulary_multiple))
        kernel = self.param("kernel", nn.initializers.normal(c.init_std), shape, jnp.dtype(c.parameter_dtype))
        return kernel.astype(c.dtype)


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
          train: apply dropout; needs the rng `dropout` when its rate is not 0.
        """
        c = self.config
        hidden_BTD, embedding_VD = Embed(c, self.constrain, name="embed")(inputs_BT)
        if c.positions == "learned":
            hidden_BTD = hidden_BTD + Learned(c, name="positions")(positions_BT)
        hidden_BTD = nn.Dropout(c.dropout, deterministic=not train)(hidden_BTD)
        hidden_BTD = self.constrain(hidden_BTD, "hidden")
        mask = masks.causal(segments_BT) if cache is None else masks.cached(positions_BT, cache.key.shape[2])
        hidden_BTD, cache = Stack(c, self.attend, self.constrain, name="decoder")(
            hidden_BTD, positions_BT, mask, cache, train
        )
        unembed_DV = embedding_VD.T if c.tied else Head(c, name="head")()
        return Output(hidden_BTD, unembed_DV, cache)
