"""The blocks, one after another: parameters in one stacked layout, run by one scan that may be unrolled."""

from collections.abc import Callable

import flax.linen as nn
import jax

from lm.model.block import Block
from lm.model.norms import NORMS

REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Stack(nn.Module):
    """`(B, T, D)` → `(B, T, D)`, normalised at the end; parameters and cache have a leading layer axis."""

    config: object
    attend: Callable
    constrain: Callable

    @nn.compact
    def __call__(self, hidden_BTD, positions_BT, mask, cache=None, train=False):
        c = self.config
        block = Block
        if c.remat != "none":
            block = nn.remat(Block, prevent_cse=c.unroll == c.layers, policy=REMAT[c.remat], static_argnums=(5,))
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            out_axes=0,
            length=c.layers,
            unroll=c.unroll,
        )
        hidden_BTD, cache = layers(c, self.attend, self.constrain, name="block")(
            hidden_BTD, cache, positions_BT, mask, train
        )
        return NORMS[c.norm](c, name="norm")(hidden_BTD), cache
