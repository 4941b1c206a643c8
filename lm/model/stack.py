"""The blocks, one after another: parameters in one stacked layout, run by one scan that may be unrolled."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.model.block import Block, Context
from lm.model.norms import NORMS

_POLICIES = jax.checkpoint_policies
REMAT = {
    "dots": _POLICIES.dots_with_no_batch_dims_saveable,
    "attention": _POLICIES.save_only_these_names("attention"),
    "full": _POLICIES.nothing_saveable,
    "offload": _POLICIES.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


class Stack(nn.Module):
    """`(B, T, D)` → `(B, T, D)`, normalised at the end; parameters, cache and Routing have a leading layer axis.

    Layers have one layout whatever their pattern: `config.windows` repeats over them, so the scan goes over groups
    of one pattern each, and the layers that are left over come after it.
    """

    config: object
    attend: Callable
    constrain: Callable
    by_rows: Callable
    layers: int

    @nn.compact
    def __call__(self, hidden_BTD, context: Context, cache=None):
        c = self.config
        block = Block(c, self.attend, self.constrain, self.by_rows, parent=None)
        if self.is_initializing():
            params = self.param("block", lambda key: _initial(block, key, hidden_BTD, context, self.layers))
        else:  # param would trace the initialiser once more, only to compare shapes
            params = self.get_variable("params", "block")
        keys = jax.random.split(self.make_rng("dropout"), self.layers) if self.has_rng("dropout") else None

        def layer(hidden_BTD, inputs, window):
            params, cache, number, key = inputs
            rngs = None if key is None else {"dropout": key}
            hidden_BTD, *outs = block.apply({"params": params}, hidden_BTD, cache, number, window, context, rngs=rngs)
            return hidden_BTD, tuple(outs)

        pattern = tuple(c.windows) or (0,)
        if cache is not None:
            hidden_BTD, cache, routing = _cached(layer, hidden_BTD, params, cache, pattern)
            return self._normed(hidden_BTD), cache, routing
        if c.remat != "none":
            # Only in a loop's body can XLA not find the forward pass again and keep what should be recomputed.
            is_loop = max(c.unroll, len(pattern)) < self.layers and self.layers % len(pattern) == 0
            layer = jax.checkpoint(layer, policy=REMAT[c.remat], static_argnums=2, prevent_cse=not is_loop)
        inputs = params, cache, jnp.arange(self.layers), keys
        unroll = min(c.unroll, self.layers)
        hidden_BTD, (cache, routing) = _patterned(layer, hidden_BTD, inputs, pattern, self.layers, unroll)
        return self._normed(hidden_BTD), cache, routing

    def _normed(self, hidden_BTD):
        return (
            hidden_BTD
            if self.config.wiring == "post"
            else NORMS[self.config.norm](self.config, name="norm")(hidden_BTD)
        )


def _initial(block: Block, key, hidden_BTD, context: Context, layers: int):
    """Return the parameters of all layers, each drawn by a key of its own."""
    one = lambda key: block.init(key, hidden_BTD, None, 0, 0, context._replace(train=False))["params"]
    return jax.vmap(one)(jax.random.split(key, layers))


def _cached(layer, hidden_BTD, params, cache, pattern):
    """Return the hidden states after all layers, their caches and Routings; layers have caches of various sizes.

    Args:
      params: stacked, or a tuple of the layers' own, so that none is copied out of the stack token after token.
    """
    caches, routings = [], []
    for number, mine in enumerate(cache):
        one = params[number] if isinstance(params, tuple) else jax.tree.map(lambda leaf: leaf[number], params)  # noqa: B023
        inputs = one, mine, number, None
        hidden_BTD, (mine, routing) = layer(hidden_BTD, inputs, pattern[number % len(pattern)])
        caches.append(mine)
        routings.append(routing)
    return hidden_BTD, tuple(caches), jax.tree.map(lambda *leaves: jnp.stack(leaves), *routings)


def _patterned(layer, hidden_BTD, inputs, pattern, layers: int, unroll: int):
    """Return the hidden states after all layers, and what else comes out of each, stacked.

    Args:
      layer: (hidden, inputs of one layer, window) → (hidden, what else comes out).
      inputs: a pytree whose leaves lead with the layer axis.
      pattern: windows of a group's layers.
      unroll: layers in one iteration of the scan.
    """
    size = len(pattern)
    groups = layers // size

    def several(hidden_BTD, inputs, windows):
        outs = []
        for index, window in enumerate(windows):
            one = jax.tree.map(lambda leaf, index=index: leaf[index], inputs)
            hidden_BTD, out = layer(hidden_BTD, one, window)
            outs.append(out)
        return hidden_BTD, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)

    grouped = jax.tree.map(lambda leaf: leaf[: groups * size].reshape(groups, size, *leaf.shape[1:]), inputs)
    body = lambda hidden_BTD, inputs: several(hidden_BTD, inputs, pattern)
    hidden_BTD, outs = jax.lax.scan(body, hidden_BTD, grouped, unroll=max(1, unroll // size))
    outs = jax.tree.map(lambda leaf: leaf.reshape(groups * size, *leaf.shape[2:]), outs)
    if layers % size:
        rest = jax.tree.map(lambda leaf: leaf[groups * size :], inputs)
        hidden_BTD, more = several(hidden_BTD, rest, pattern[: layers % size])
        outs = jax.tree.map(lambda one, other: jnp.concatenate([one, other]), outs, more)
    return hidden_BTD, outs
