"""The model section: its fields, what is derived from them, which combinations are refused."""

from collections.abc import Mapping
from typing import Any

from lm.config.field import EITHER, FREE, Field, Rule, above, at_least, fraction, one_of
from lm.families.catalog import switches
from lm.refusal import Refusal

DTYPE = one_of(float32="32 bits", bfloat16="16 bits with the range of 32")

FIELDS = {
    "model.family": Field(
        "gpt2",
        "the architecture whose switches fill those left unset",
        one_of(gpt2="Radford et al. 2019", llama="Touvron et al. 2023"),
    ),
    "model.architecture": Field(
        None,
        "which stacks of blocks there are",
        one_of(
            decoder="one that sees what is before: GPT, Radford et al. 2018",
            encoder="one that sees all: BERT, Devlin et al. 2019",
            encoder_decoder="one that sees all, and one that sees what is before and the first: Vaswani et al. 2017",
        ),
        kind=str,
    ),
    "model.context": Field(256, "tokens in a window", at_least(2)),
    "model.width": Field(256, "size of the residual stream", at_least(1)),
    "model.layers": Field(4, "number of blocks", at_least(1)),
    "model.encoder_layers": Field(
        None, "blocks of the encoder of an encoder_decoder; unset: as many as layers", at_least(1), kind=int
    ),
    "model.heads": Field(4, "query heads", at_least(1)),
    "model.kv_heads": Field(None, "key and value heads; unset: as many as heads", at_least(1), kind=int),
    "model.head_width": Field(None, "size of a head; unset: width / heads", at_least(1), kind=int),
    "model.feedforward_width": Field(
        None,
        "hidden size of the feed-forward; unset: 4 × width, or 8/3 × width (to a multiple of 64) when gated",
        at_least(1),
        kind=int,
    ),
    "model.norm": Field(
        None, "normalisation", one_of(layer="LayerNorm: Ba et al. 2016", rms="RMSNorm: Zhang & Sennrich 2019"), kind=str
    ),
    "model.norm_epsilon": Field(None, "added to the variance", above(0), kind=float),
    "model.wiring": Field(
        None,
        "how a branch f joins the residual stream x",
        one_of(
            pre="x + f(norm(x)): Xiong et al. 2020",
            post="norm(x + f(x)): Vaswani et al. 2017",
            sandwich="x + norm(f(norm(x))): Ding et al. 2021",
            parallel="x + attention(norm(x)) + feedforward(norm(x)): Chowdhery et al. 2022",
        ),
        kind=str,
    ),
    "model.residual_scalars": Field(
        False, "each block begins with λ·x + μ·(embedded input), λ and μ learned from 1 and 0", EITHER
    ),
    "model.positions": Field(
        None,
        "how order enters",
        one_of(
            none="not at all but by the causal mask: Kazemnejad et al. 2023",
            learned="a vector per position, added to the embedding",
            sinusoidal="sines and cosines, added to the embedding: Vaswani et al. 2017",
            rotary="queries and keys turned by their positions: Su et al. 2021",
            alibi="scores fall with distance, by a slope per head: Press et al. 2022",
            relative="a learned number per head and bucket of distances, added to the scores: Raffel et al. 2020",
        ),
        kind=str,
    ),
    "model.position_offset": Field(
        None, "rows of the table of learned positions before the first token's", at_least(0), kind=int
    ),
    "model.rotary_base": Field(None, "base of the rotary wavelengths", above(1), kind=float),
    "model.relative_buckets": Field(32, "buckets of distances (relative positions)", at_least(2)),
    "model.relative_distance": Field(
        128, "distance from which on all share a bucket (relative positions)", at_least(2)
    ),
    "model.token_types": Field(
        None,
        "kinds of token, such as the first and second of two texts, each with a vector; 0: none",
        at_least(0),
        kind=int,
    ),
    "model.embedding_norm": Field(None, "a norm before the first block", EITHER, kind=bool),
    "model.windows": Field(
        (),
        "tokens that attention sees back, its own included, layer by layer, repeated over the layers; 0: all; "
        "(): all in every layer",
        Rule("whole numbers of at least 0", lambda value: all(window >= 0 for window in value)),
        element=int,
    ),
    "model.qk_norm": Field(None, "queries and keys normalised over each head: Henry et al. 2020", EITHER, kind=bool),
    "model.attention_soft_cap": Field(
        None, "scores s become cap · tanh(s / cap): Gemma 2, arXiv 2408.00118; 0: they stay", at_least(0), kind=float
    ),
    "model.logits_soft_cap": Field(
        None, "logits become cap · tanh(logits / cap): Gemma 2, arXiv 2408.00118; 0: they stay", at_least(0), kind=float
    ),
    "model.value_embeddings": Field(
        0, "tables of vectors by token id that attention adds to its values, taken in turn by layers", at_least(0)
    ),
    "model.activation": Field(
        None,
        "of the feed-forward",
        one_of(
            gelu="x · Φ(x): Hendrycks & Gimpel 2016",
            gelu_tanh="its approximation by tanh, as GPT-2 has it",
            silu="x · σ(x)",
            relu_squared="max(x, 0)²: So et al. 2021",
        ),
        kind=str,
    ),
    "model.gated": Field(None, "feed-forward with a gate (GLU)", EITHER, kind=bool),
    "model.bias": Field(None, "biases in projections and layer norms", EITHER, kind=bool),
    "model.head": Field(
        None,
        "what the hidden states become",
        one_of(
            language="logits of ids",
            masked="logits of ids after one more layer and norm, with a bias: Devlin et al. 2019",
            classify="logits of labels: Devlin et al. 2019",
            none="nothing",
        ),
        kind=str,
    ),
    "model.labels": Field(None, "classes of the head classify", at_least(1), kind=int),
    "model.pooler": Field(
        None,
        "tanh of a layer of the hidden states, which the head classify reads; unset: with it, but in a decoder",
        EITHER,
        kind=bool,
    ),
    "model.tied": Field(None, "the head shares the embedding's weights", EITHER, kind=bool),
    "model.scaled_head": Field(
        None, "hidden states are divided by √width before the head language: T5, with a tied head", EITHER, kind=bool
    ),
    "model.dropout": Field(0.0, "rate, after the embedding and after each branch", fraction()),
    "model.token_dropout": Field(0.0, "share of tokens whose embedding is zero in a training step", fraction()),
    "model.stochastic_depth": Field(
        0.0, "share of rows for which the last layer's branches are left out, growing from layer to layer", fraction()
    ),
    "model.init": Field(
        "gpt2",
        "scheme of initial weights",
        one_of(
            gpt2="normal of deviation init_std; branch outputs: / √(2 layers): Radford et al. 2019",
            fan_in="truncated normal of deviation 1 / √fan-in: LeCun et al. 1998",
            small="normal of deviation √(2 / 5 width): Nguyen & Salazar 2019; branch outputs: 2 / (layers √width)",
        ),
    ),
    "model.init_std": Field(
        0.02,
        "standard deviation of initial weights (scheme gpt2), of learned positions and of relative ones",
        above(0),
    ),
    "model.zero_init": Field(
        False, "branch outputs start at zero: blocks start as the identity (wiring post: as their norms)", EITHER
    ),
    "model.vocabulary": Field(None, "number of token ids; unset: the tokenizer's", at_least(2), kind=int),
    "model.vocabulary_multiple": Field(128, "embedding rows are padded to a multiple of this", at_least(1)),
    "model.dtype": Field("float32", "dtype of activations and matrix products", DTYPE),
    "model.parameter_dtype": Field("float32", "dtype of parameters and optimizer moments", DTYPE),
    "model.softmax_dtype": Field("float32", "dtype of attention's softmax", DTYPE),
    "model.norm_dtype": Field("float32", "dtype inside norms", DTYPE),
    "model.logits_dtype": Field("float32", "dtype of logits and of each token's loss; sums are float32", DTYPE),
    "model.remat": Field(
        "none",
        "what the backward pass computes again",
        one_of(none="nothing", dots="all but matrix products", full="everything"),
        FREE,
    ),
    "model.unroll": Field(
        0, "blocks per iteration of the layer scan; 0: all on CPU and GPU, 1 on TPU", at_least(0), FREE
    ),
}


def fill(flat: dict[str, Any]) -> None:
    """Set what is unset: the family's switches, sizes that follow from others."""
    family = switches(flat["model.family"])
    positions = flat["model.positions"] or family["positions"]
    if positions != "rotary" and flat["model.rotary_base"] is not None:
        raise Refusal(
            f"model.rotary_base is {flat['model.rotary_base']}, but model.positions is {positions!r}: "
            "it is for model.positions='rotary'."
        )
    # What a family has for the way it is else wired falls away with that.
    given = lambda name: family[name] if flat[f"model.{name}"] is None else flat[f"model.{name}"]
    is_scalable = given("tied") and given("head") == "language"
    family |= {"scaled_head": family["scaled_head"] and is_scalable}
    family |= {"position_offset": family["position_offset"] if positions == "learned" else 0}
    for name, value in family.items():
        if flat[f"model.{name}"] is None:
            flat[f"model.{name}"] = value
    if positions == "rotary" and flat["model.rotary_base"] is None:
        flat["model.rotary_base"] = 10000.0
    if positions != "rotary":
        flat["model.rotary_base"] = None
    if flat["model.architecture"] != "encoder_decoder" and flat["model.encoder_layers"] is not None:
        raise Refusal(
            f"model.encoder_layers is {flat['model.encoder_layers']}, but model.architecture is "
            f"{flat['model.architecture']!r}: set model.layers."
        )
    if flat["model.architecture"] == "encoder_decoder" and flat["model.encoder_layers"] is None:
        flat["model.encoder_layers"] = flat["model.layers"]
    if flat["model.pooler"] is None:
        flat["model.pooler"] = flat["model.head"] == "classify" and flat["model.architecture"] != "decoder"
    width, heads = flat["model.width"], flat["model.heads"]
    if flat["model.head_width"] is None:
        if width % heads:
            raise Refusal(f"model.heads is {heads}: it must divide model.width ({width}), or set model.head_width.")
        flat["model.head_width"] = width // heads
    if flat["model.kv_heads"] is None:
        flat["model.kv_heads"] = heads
    if flat["model.feedforward_width"] is None:
        flat["model.feedforward_width"] = -(-8 * width // (3 * 64)) * 64 if flat["model.gated"] else 4 * width


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be built."""
    heads, kv_heads, layers = flat["model.heads"], flat["model.kv_heads"], flat["model.layers"]
    if heads % kv_heads:
        raise Refusal(f"model.kv_heads is {kv_heads}: it must divide model.heads ({heads}).")
    if flat["model.positions"] == "rotary" and flat["model.head_width"] % 2:
        raise Refusal(f"model.head_width is {flat['model.head_width']}: rotary positions need an even number.")
    if len(flat["model.windows"]) > layers:
        raise Refusal(
            f"model.windows is {flat['model.windows']}: it must have at most model.layers ({layers}) entries."
        )
    if flat["model.value_embeddings"] > layers:
        raise Refusal(
            f"model.value_embeddings is {flat['model.value_embeddings']}: it must be at most model.layers ({layers})."
        )
    if (flat["model.labels"] is None) == (flat["model.head"] == "classify"):
        raise Refusal(
            f"model.labels is {flat['model.labels']}, but model.head is {flat['model.head']!r}: "
            "'classify' needs labels, and no other head has them."
        )
    if flat["model.scaled_head"] and flat["model.head"] != "language":
        raise Refusal(f"model.scaled_head is True, but model.head is {flat['model.head']!r}: it is for 'language'.")
    if flat["model.position_offset"] and flat["model.positions"] != "learned":
        raise Refusal(
            f"model.position_offset is {flat['model.position_offset']}, but model.positions is "
            f"{flat['model.positions']!r}: it is for 'learned'."
        )
    if flat["model.token_types"] and flat["model.architecture"] == "encoder_decoder":
        raise Refusal(
            f"model.token_types is {flat['model.token_types']}: an encoder_decoder reads each text with a stack of its "
            "own; set it to 0."
        )
    buckets, farthest = flat["model.relative_buckets"], flat["model.relative_distance"]
    if flat["model.positions"] == "relative" and flat["model.architecture"] != "decoder" and buckets < 4:
        raise Refusal(f"model.relative_buckets is {buckets}: an encoder needs at least 4, two for keys after.")
    if flat["model.positions"] == "relative" and farthest <= buckets // 2:
        raise Refusal(f"model.relative_distance is {farthest}: it must be above half of the buckets ({buckets // 2}).")
    if flat["model.token_dropout"] and flat["model.value_embeddings"]:
        raise Refusal(
            f"model.token_dropout is {flat['model.token_dropout']}: value embeddings would still show the tokens "
            "that it leaves out; set it or model.value_embeddings to 0."
        )
    if flat["model.unroll"] and layers % flat["model.unroll"]:
        raise Refusal(f"model.unroll is {flat['model.unroll']}: it must divide model.layers ({layers}), or be 0.")
