"""Token ids in; hidden states, the head's weights and the cache out: embed → stacks of blocks → head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lm.batch import Batch
from lm.model import attend as attends
from lm.model import masks
from lm.model.block import Context
from lm.model.dense import Dense
from lm.model.heads import HEADS
from lm.model.init import initializer
from lm.model.norms import NORMS
from lm.model.positions import ADDED, BIASES
from lm.model.stack import Stack
from lm.model.whole import Whole, restored


class Tokens(NamedTuple):
    """What an encoder reads, int32 `(B, S)` each: ids, each one's place in its record, which record it belongs to."""

    inputs: Any
    positions: Any
    segments: Any


class Output(NamedTuple):
    """hidden: `(B, T, D)`, normalised. unembed: `(D, V padded)`; logits are their product. cache: as given, filled.

    Of parameters prepared as whole numbers, unembed is a whole.Whole `(V padded, D)`.
    With model.head "classify" labels stand for V padded; with "none" there is no unembed.
    unembed_bias: `(V padded,)`, added to the logits, or None.
    routing: moe.Routing of every layer (of an encoder's first), or None without experts.
    pooled: `(B, T, D)`, tanh of a layer of the hidden states, or None.
    """

    hidden: Any
    unembed: Any
    cache: Any
    unembed_bias: Any = None
    routing: Any = None
    pooled: Any = None


def padded(vocabulary: int, multiple: int) -> int:
    """Return the number of rows of the embedding."""
    return -(-vocabulary // multiple) * multiple


class Embed(nn.Module):
    """Ids → vectors, `(V padded, D)`."""

    config: object
    constrain: Callable

    def setup(self):
        c = self.config
        shape = (padded(c.vocabulary, c.vocabulary_multiple), c.width)
        initial = initializer(c, "embedding", c.width)
        # Prepared for generation (lm/generate/prepare.py): an array, or a whole.Whole.
        self.rows = self.get_variable("params", "rows") if self.has_variable("params", "rows") else None
        if self.rows is None:
            self.embedding = self.param("embedding", initial, shape, jnp.dtype(c.parameter_dtype))

    def __call__(self, inputs_BT):
        # Cast after the look-up, so that the gradient of a frequent id is summed in the parameters' dtype.
        if self.rows is None:
            vectors_BTD = self.constrain(self.embedding, "embedding")[inputs_BT].astype(self.config.dtype)
        else:  # the barrier keeps XLA:CPU from making real numbers of a whole table of 16-bit ones, ahead of a loop
            rows, inputs_BT = jax.lax.optimization_barrier((self.rows, inputs_BT))
            found = jax.tree.map(lambda leaf: leaf[inputs_BT], rows)
            vectors_BTD = restored(found, self.config.dtype) if isinstance(found, Whole) else found
        if self.config.scaled_embedding:  # by √width in dtype, as Gemma rounds it
            vectors_BTD = vectors_BTD * jnp.asarray(self.config.width**0.5, self.config.dtype)
        return vectors_BTD

    def table(self):
        """Return the vectors, `(V padded, D)`."""
        if self.rows is not None:
            return self.rows
        return self.constrain(self.embedding, "embedding").astype(self.config.dtype)


class TokenTypes(nn.Module):
    """Which of a pair of texts a token belongs to → vectors, `(types, D)` (BERT: Devlin et al. 2019, §3)."""

    config: object

    @nn.compact
    def __call__(self, types_BT):
        c = self.config
        initial = initializer(c, "embedding", c.width)
        embedding = self.param("embedding", initial, (c.token_types, c.width), jnp.dtype(c.parameter_dtype))
        return embedding[types_BT].astype(c.dtype)


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
    """A decoder, an encoder or both (Vaswani et al. 2017), defined by its config section alone.

    config: config.model, resolved and bound.
    attend: one of lm/model/kernels.py.
    constrain: (array, name) → array, placing named activations on a mesh; the identity without one.
    by_rows: (function of what rows share and of rows) → the same, run by each device on its rows; likewise.
    """

    config: object
    attend: Callable = attends.einsum
    constrain: Callable = lambda array, name: array
    by_rows: Callable = lambda function: function

    @nn.compact
    def __call__(
        self,
        inputs_BT,
        positions_BT,
        segments_BT=None,
        cache=None,
        train=False,
        types_BT=None,
        prefix_BT=None,
        encoder: Tokens | None = None,
    ) -> Output:
        """Return the Output.

        Args:
          inputs_BT: int32 ids.
          positions_BT: int32, a token's place in its record; with a cache, in the text so far.
          segments_BT: int32, which record each token belongs to; None: they go on from what the cache holds.
          cache: None, or the layers' Caches, which are filled; with segments a text's beginning, padded at its end.
          train: apply dropout; needs the rng `dropout` when a rate is not 0.
          types_BT: int32 below model.token_types; None: 0.
          prefix_BT: bool, tokens that all of their segment see in a decoder; or None.
          encoder: what the encoder of an encoder–decoder reads; None with a cache that holds it.
        """
        c = self.config
        embed = Embed(c, self.constrain, name="embed")
        memory = routing = None
        dispatch = c.dispatch if cache is None else "ragged"  # padding must not decide which tokens find a place
        if encoder is not None:
            mask = masks.packed(encoder.segments, is_causal=False)
            hidden_BSD, _, routing = self._read(embed, encoder, mask, "encoder", train, dispatch)
            memory = hidden_BSD, encoder.segments
        is_encoder = c.architecture == "encoder"
        mask = None if segments_BT is None else masks.packed(segments_BT, not is_encoder, prefix_BT)
        tokens = Tokens(inputs_BT, positions_BT, segments_BT)
        stack = "encoder" if is_encoder else "decoder"
        hidden_BTD, cache, more = self._read(embed, tokens, mask, stack, train, dispatch, types_BT, memory, cache)
        if routing is not None:
            more = jax.tree.map(lambda *layers: jnp.concatenate(layers), routing, more)
        pooled_BTD = jnp.tanh(Dense(c, (c.width,), (c.width,), name="pooler")(hidden_BTD)) if c.pooler else None
        if c.pooler and c.head == "classify":
            hidden_BTD = pooled_BTD
        hidden_BTD, unembed_DV, bias_V = HEADS[c.head](c, name="head")(hidden_BTD, embed.table(), train)
        return Output(hidden_BTD, unembed_DV, cache, bias_V, more, pooled_BTD)

    def _read(self, embed, tokens, mask, stack, train, dispatch, types_BT=None, memory=None, cache=None):
        """Return the hidden states after the stack of that name, the cache, and the Routing or None."""
        c = self.config
        # The encoder of an encoder–decoder has positions, norm and values of its own.
        is_memory = stack == "encoder" and c.architecture == "encoder_decoder"
        own = "encoder_" if is_memory else ""
        hidden_BTD = embed(tokens.inputs)
        # Tokens left out whole, each by itself (Gal & Ghahramani 2016, arXiv 1512.05287, §4.2, leave out words).
        hidden_BTD = nn.Dropout(c.token_dropout, broadcast_dims=(2,), deterministic=not train)(hidden_BTD)
        if c.positions in ADDED:
            hidden_BTD = hidden_BTD + ADDED[c.positions](c, name=f"{own}positions")(tokens.positions)
        if c.token_types:
            types_BT = jnp.zeros_like(tokens.inputs) if types_BT is None else types_BT
            hidden_BTD = hidden_BTD + TokenTypes(c, name="types")(types_BT)
        if c.embedding_norm:
            hidden_BTD = NORMS[c.norm](c, name=f"{own}embed_norm")(hidden_BTD)
        hidden_BTD = nn.Dropout(c.dropout, deterministic=not train)(hidden_BTD)
        hidden_BTD = self.constrain(hidden_BTD, "hidden")
        values = TokenValues(c, self.constrain, name=f"{own}values") if c.value_embeddings else None
        bias = BIASES[c.positions](c, stack == "decoder", name=f"{own}positions") if c.positions in BIASES else None
        layers = c.encoder_layers if is_memory else c.layers
        context = Context(
            positions=tokens.positions,
            mask=mask,
            bias=bias and bias(),
            embedded=hidden_BTD,
            token_values=values and values(tokens.inputs),
            segments=tokens.segments,
            memory=memory,
            layers=layers,
            dispatch=dispatch,
            train=train,
        )
        return Stack(c, self.attend, self.constrain, self.by_rows, layers, name=stack)(hidden_BTD, context, cache)


def initial(model: Transformer, key) -> Any:
    """Return a model's parameters, drawn by the key."""
    ids = jnp.zeros((1, 2), jnp.int32)
    encoder = Tokens(ids, ids, ids) if model.config.architecture == "encoder_decoder" else None
    # since there is but one row, of two tokens
    model = model.clone(attend=attends.einsum, by_rows=lambda function: function)
    return model.init(key, ids, ids, ids, encoder=encoder)["params"]


def forward(model: Transformer) -> Callable[[Any, Batch, Any], Output]:
    """Return (params, batch, key) → Output; the key is for dropout, None for none."""

    def run(params, batch, key):
        has_encoder = model.config.architecture == "encoder_decoder"
        encoder = Tokens(batch.encoder_inputs, batch.encoder_positions, batch.encoder_segments) if has_encoder else None
        return model.apply(
            {"params": params},
            batch.inputs,
            batch.positions,
            batch.segments,
            train=key is not None,
            types_BT=batch.types,
            prefix_BT=batch.prefix,
            encoder=encoder,
            rngs=None if key is None else {"dropout": key},
        )

    return run
