"""Multi-head attention: projections to queries, keys and values, positions, cache, and back."""

from collections.abc import Callable

import flax.linen as nn

from lm.model import cache as caches
from lm.model.dense import Dense, together
from lm.model.positions import rotate


class Attention(nn.Module):
    """`(B, T, D)` → `(B, T, D)`; `attend` is one of lm/model/attend.py."""

    config: object
    attend: Callable

    @nn.compact
    def __call__(self, hidden_BTD, positions_BT, mask, cache=None):
        c = self.config
        layer = lambda heads, name: Dense(c, (c.width,), (heads, c.head_width), c.init_std, name=name)
        query_BTHC, key_BTKC, value_BTKC = together(
            hidden_BTD, layer(c.heads, "query"), layer(c.kv_heads, "key"), layer(c.kv_heads, "value")
        )
        if c.positions == "rotary":
            query_BTHC = rotate(query_BTHC, positions_BT, c.rotary_base)
            key_BTKC = rotate(key_BTKC, positions_BT, c.rotary_base)
        if cache is not None:
            cache = caches.write(cache, key_BTKC, value_BTKC, positions_BT)
            key_BTKC, value_BTKC = cache
        mixed_BTHC = self.attend(query_BTHC, key_BTKC, value_BTKC, mask, c.softmax_dtype)
        std = c.init_std * (2 * c.layers) ** -0.5
        return Dense(c, (c.heads, c.head_width), (c.width,), std, name="out")(mixed_BTHC), cache
