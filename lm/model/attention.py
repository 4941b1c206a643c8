"""Multi-head attention, to the same rows or to an encoder's: projections, positions, cache, and back."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from lm.model import cache as caches
from lm.model import masks, rolling
from lm.model.dense import Dense, together
from lm.model.norms import NORMS
from lm.model.positions import TURNED


class Attention(nn.Module):
    """`(B, T, D)` → `(B, T, D)`; `attend` is one of lm/model/kernels.py."""

    config: object
    attend: Callable

    @nn.compact
    def __call__(self, hidden_BTD, positions_BT, mask, cache=None, bias=None, token_values_BTKC=None, window=None):
        """Return the branch and the cache.

        Args:
          mask: of the rows to themselves; None: they go on from what the cache holds.
          cache: None, or one layer's, that is filled.
          bias: of the scores, as `attend` takes it.
          token_values_BTKC: what value embeddings add to the values (Zhou et al. 2024, arXiv 2410.17897, in the
            form of a table per token as modded-nanoGPT has it), times a learned number per head; or None.
          window: places that are seen; None: all.
        """
        c = self.config
        layer = lambda heads, name: _projection(c, heads, name)
        query_BTHC, key_BTKC, value_BTKC = together(
            hidden_BTD, layer(c.heads, "query"), layer(c.kv_heads, "key"), layer(c.kv_heads, "value")
        )
        if c.qk_norm:  # over a head, one scale for all heads (Henry et al. 2020, arXiv 2010.04245; Qwen 3)
            query_BTHC = NORMS[c.norm](c, name="query_norm")(query_BTHC)
            key_BTKC = NORMS[c.norm](c, name="key_norm")(key_BTKC)
        if token_values_BTKC is not None:
            scale_K = self.param("value_scale", nn.initializers.ones, (c.kv_heads,), jnp.dtype(c.parameter_dtype))
            added_BTKC = scale_K.astype("float32")[None, None, :, None] * token_values_BTKC
            value_BTKC = value_BTKC + added_BTKC.astype(c.dtype)
        turns = TURNED.get(c.positions, lambda x, places, config, is_windowed: x)
        turn = lambda x, places: turns(x, places, c, window is not None)
        if mask is None and cache.sinks is not None:
            cache, query_BTHC, key_BTKC, value_BTKC, mask = rolling.follow(
                cache, query_BTHC, key_BTKC, value_BTKC, positions_BT, turn
            )
            mask = mask._replace(window=window)
        else:
            is_rolling = cache is not None and cache.sinks is not None
            if is_rolling:  # keys are kept as they are before they are turned
                key_BTKC = caches.held(cache, key_BTKC)
            plain_BTKC = key_BTKC
            query_BTHC, key_BTKC = turn(query_BTHC, positions_BT), turn(key_BTKC, positions_BT)
            if mask is None:
                cache = caches.write(cache, key_BTKC, value_BTKC, positions_BT, is_rolling=window is not None)
                key_BTKC, value_BTKC = caches.read(cache, c.dtype)
                mask = masks.cached(positions_BT, cache.slots, window)
            else:
                if cache is not None:  # whose numbers are seen from the first, so that reading anew changes nothing
                    kept_BTKC = plain_BTKC if is_rolling else key_BTKC
                    cache = caches.begin(cache, kept_BTKC, value_BTKC, mask.query_segments)
                    key_BTKC = key_BTKC if is_rolling else caches.held(cache, key_BTKC)
                    value_BTKC = caches.held(cache, value_BTKC)
                mask = mask._replace(window=window)
        cap, scale = c.attention_soft_cap, c.attention_scale
        mixed_BTHC = self.attend(query_BTHC, key_BTKC, value_BTKC, mask, c.softmax_dtype, bias, cap, scale)
        mixed_BTHC = mixed_BTHC[..., : c.head_width]  # of which a cache that rolls may make more
        return Dense(c, (c.heads, c.head_width), (c.width,), "out", name="out")(mixed_BTHC), cache


def _projection(config, heads: int, name: str) -> Dense:
    """Return the map from the residual stream to queries, keys or values."""
    return Dense(config, (config.width,), (heads, config.head_width), has_bias=config.attention_bias, name=name)


class CrossAttention(nn.Module):
    """`(B, T, D)` → `(B, T, D)`: a decoder's queries, an encoder's keys and values (Vaswani et al. 2017, §3.2.3)."""

    config: object
    attend: Callable

    @nn.compact
    def __call__(self, hidden_BTD, memory, segments_BT, cache=None):
        """Return the branch and the cache.

        Args:
          memory: what was read, (hidden `(B, S, D)`, segments `(B, S)`); None: the cache has it.
          segments_BT: of the decoder's rows; None with a cache, where all is one.
        """
        c = self.config
        layer = lambda heads, name: _projection(c, heads, name)
        query_BTHC = layer(c.heads, "query")(hidden_BTD)
        if memory is None:
            key_BSKC, value_BSKC, segments_BS = cache.memory_key, cache.memory_value, cache.memory_segments
        else:
            memory_BSD, segments_BS = memory
            key_BSKC, value_BSKC = together(memory_BSD, layer(c.kv_heads, "key"), layer(c.kv_heads, "value"))
            if cache is not None:
                cache = cache._replace(memory_key=key_BSKC, memory_value=value_BSKC, memory_segments=segments_BS)
        if segments_BT is None:
            segments_BT = jnp.ones(hidden_BTD.shape[:2], jnp.int32)
        mask = masks.across(segments_BT, segments_BS)
        cap, scale = c.attention_soft_cap, c.attention_scale
        mixed_BTHC = self.attend(query_BTHC, key_BSKC, value_BSKC, mask, c.softmax_dtype, None, cap, scale)
        return Dense(c, (c.heads, c.head_width), (c.width,), "out", name="out")(mixed_BTHC), cache
