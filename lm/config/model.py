"""The model section: its fields, what is derived from them, which combinations are refused."""

from collections.abc import Mapping
from typing import Any

from lm.config import head, positions
from lm.config.field import EITHER, FREE, Field, Rule, above, at_least, check_readers, fraction, one_of
from lm.families.catalog import switches
from lm.refusal import Refusal

DTYPE = one_of(float32="32 bits", bfloat16="16 bits with the range of 32")

FIELDS = (
    {
        "model.family": Field(
            "gpt2",
            "the architecture whose switches fill those left unset",
            one_of(
                gpt2="Radford et al. 2019",
                gpt_neox="Black et al. 2022; Pythia",
                llama="Touvron et al. 2023; SmolLM2",
                mistral="Jiang et al. 2023",
                mixtral="Jiang et al. 2024",
                qwen2="Yang et al. 2024; Qwen2.5",
                qwen3="Yang et al. 2025",
                qwen3_moe="Qwen 3 with experts: Yang et al. 2025",
                gemma2="Gemma Team 2024",
                gemma3="Gemma Team 2025",
                bert="Devlin et al. 2019; MiniLM",
                roberta="Liu et al. 2019",
                t5="Raffel et al. 2020; Flan-T5",
            ),
        ),
        "model.architecture": Field(
            None,
            "which stacks of blocks there are",
            one_of(
                decoder="one that sees what is before: GPT, Radford et al. 2018",
                encoder="one that sees all: BERT, Devlin et al. 2019",
                encoder_decoder="one that sees all, one that sees what is before and the first: Vaswani et al. 2017",
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
            "hidden size of the feed-forward (of each expert); unset: 4 × width, or 8/3 × width (to a multiple of 64) "
            "when gated",
            at_least(1),
            kind=int,
        ),
        "model.experts": Field(
            None, "feed-forwards that a router chooses from for each token; 0: one for all", at_least(0), kind=int
        ),
        "model.experts_per_token": Field(None, "experts that a token takes", at_least(1), kind=int),
        "model.router_normalized": Field(
            None, "the weights of the experts that a token takes sum to 1, not those of all", EITHER, kind=bool
        ),
        "model.dispatch": Field(
            "ragged",
            "how tokens get to their experts",
            one_of(
                ragged="sorted, and none is left out: MegaBlocks, Gale et al. 2022",
                capacity="to a fixed number of places, in the order of tokens; who finds none goes without: "
                "GShard, Lepikhin et al. 2020",
            ),
        ),
        "model.expert_capacity": Field(
            1.25, "places of an expert for a row's tokens, as a multiple of its even share (capacity)", above(0)
        ),
        "model.norm": Field(
            None,
            "normalisation",
            one_of(layer="LayerNorm: Ba et al. 2016", rms="RMSNorm: Zhang & Sennrich 2019"),
            kind=str,
        ),
        "model.norm_epsilon": Field(None, "added to the variance", above(0), kind=float),
        "model.unit_offset": Field(
            None, "norms scale by 1 + their parameter, which starts at 0: Gemma, arXiv 2403.08295", EITHER, kind=bool
        ),
        "model.wiring": Field(
            None,
            "how a branch f joins the residual stream x",
            one_of(
                pre="x + f(norm(x)): Xiong et al. 2020",
                post="norm(x + f(x)): Vaswani et al. 2017",
                sandwich="x + norm(f(norm(x))): Ding et al. 2021",
                parallel="x + attention(norm(x)) + feedforward(norm(x)): Chowdhery et al. 2022",
                parallel_norms="the same with a norm for each branch: GPT-NeoX, Black et al. 2022",
            ),
            kind=str,
        ),
        "model.residual_scalars": Field(
            False, "each block begins with λ·x + μ·(embedded input), λ and μ learned from 1 and 0", EITHER
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
        "model.qk_norm": Field(
            None, "queries and keys normalised over each head: Henry et al. 2020", EITHER, kind=bool
        ),
        "model.attention_scale": Field(
            None, "what scores are multiplied by; unset: 1 / √head_width: Vaswani et al. 2017", above(0), kind=float
        ),
        "model.attention_soft_cap": Field(
            None,
            "scores s become cap · tanh(s / cap): Gemma 2, arXiv 2408.00118; 0: they stay",
            at_least(0),
            kind=float,
        ),
        "model.logits_soft_cap": Field(
            None,
            "logits become cap · tanh(logits / cap): Gemma 2, arXiv 2408.00118; 0: they stay",
            at_least(0),
            kind=float,
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
                relu="max(x, 0): Glorot et al. 2011",
                relu_squared="max(x, 0)²: So et al. 2021",
            ),
            kind=str,
        ),
        "model.gated": Field(None, "feed-forward with a gate (GLU)", EITHER, kind=bool),
        "model.bias": Field(None, "biases in projections and layer norms", EITHER, kind=bool),
        "model.attention_bias": Field(
            None, "biases in the projections to queries, keys and values; unset: as bias", EITHER, kind=bool
        ),
        "model.tied": Field(None, "the head shares the embedding's weights", EITHER, kind=bool),
        "model.scaled_embedding": Field(
            None, "embedded tokens are multiplied by √width: Vaswani et al. 2017, §3.4; Gemma", EITHER, kind=bool
        ),
        "model.dropout": Field(0.0, "rate, after the embedding and after each branch", fraction()),
        "model.token_dropout": Field(0.0, "share of tokens whose embedding is zero in a training step", fraction()),
        "model.stochastic_depth": Field(
            0.0,
            "share of rows for which the last layer's branches are left out, growing from layer to layer",
            fraction(),
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
            one_of(
                none="nothing",
                dots="all but matrix products",
                attention="all but what attention gives",
                full="everything",
                offload="all but matrix products, which the host's memory keeps meanwhile",
            ),
            FREE,
        ),
        "model.projections": Field(
            "auto",
            "how what has the same input is computed: query, key and value; gate and feed-forward",
            one_of(
                auto="joined on a CPU where parallel.mesh.tensor does not split them, else apart",
                joined="as one matrix product",
                apart="one by one",
            ),
            FREE,
        ),
        "model.unroll": Field(
            0, "blocks per iteration of the layer scan; 0: all on CPU and GPU, 1 on TPU", at_least(0), FREE
        ),
    }
    | positions.FIELDS
    | head.FIELDS
)

_READERS = {"model.expert_capacity": ("model.dispatch", ("capacity",))}


def fill(flat: dict[str, Any]) -> None:
    """Set what is unset: the family's switches, sizes that follow from others."""
    family = switches(flat["model.family"])
    positions.fit(flat, family)
    head.fill(flat, family)
    _check_experts(flat, family)
    for name, value in family.items():
        if flat[f"model.{name}"] is None:
            flat[f"model.{name}"] = value
    if flat["model.attention_bias"] is None:
        flat["model.attention_bias"] = flat["model.bias"]
    if flat["model.architecture"] != "encoder_decoder" and flat["model.encoder_layers"] is not None:
        raise Refusal(
            f"model.encoder_layers is {flat['model.encoder_layers']}, but model.architecture is "
            f"{flat['model.architecture']!r}: set model.layers."
        )
    if flat["model.architecture"] == "encoder_decoder" and flat["model.encoder_layers"] is None:
        flat["model.encoder_layers"] = flat["model.layers"]
    width, heads = flat["model.width"], flat["model.heads"]
    if flat["model.head_width"] is None:
        if width % heads:
            raise Refusal(f"model.heads is {heads}: it must divide model.width ({width}), or set model.head_width.")
        flat["model.head_width"] = width // heads
    if flat["model.attention_scale"] is None:
        flat["model.attention_scale"] = flat["model.head_width"] ** -0.5
    if flat["model.kv_heads"] is None:
        flat["model.kv_heads"] = heads
    if flat["model.feedforward_width"] is None:
        flat["model.feedforward_width"] = -(-8 * width // (3 * 64)) * 64 if flat["model.gated"] else 4 * width


def check(flat: Mapping[str, Any]) -> None:
    """Refuse combinations that cannot be built."""
    heads, kv_heads, layers = flat["model.heads"], flat["model.kv_heads"], flat["model.layers"]
    if heads % kv_heads:
        raise Refusal(f"model.kv_heads is {kv_heads}: it must divide model.heads ({heads}).")
    check_readers(flat, FIELDS, _READERS)
    positions.check(flat)
    head.check(flat)
    if len(flat["model.windows"]) > layers:
        raise Refusal(
            f"model.windows is {flat['model.windows']}: it must have at most model.layers ({layers}) entries."
        )
    if flat["model.value_embeddings"] > layers:
        raise Refusal(
            f"model.value_embeddings is {flat['model.value_embeddings']}: it must be at most model.layers ({layers})."
        )
    if flat["model.experts"] and flat["model.experts_per_token"] > flat["model.experts"]:
        raise Refusal(
            f"model.experts_per_token is {flat['model.experts_per_token']}: it must be at most model.experts "
            f"({flat['model.experts']})."
        )
    if flat["model.token_types"] and flat["model.architecture"] == "encoder_decoder":
        raise Refusal(
            f"model.token_types is {flat['model.token_types']}: an encoder_decoder reads each text with a stack of its "
            "own; set it to 0."
        )
    if flat["model.token_dropout"] and flat["model.value_embeddings"]:
        raise Refusal(
            f"model.token_dropout is {flat['model.token_dropout']}: value embeddings would still show the tokens "
            "that it leaves out; set it or model.value_embeddings to 0."
        )
    for name in ("model.layers", "model.encoder_layers"):
        if flat["model.unroll"] and (flat[name] or 0) % flat["model.unroll"]:
            raise Refusal(f"model.unroll is {flat['model.unroll']}: it must divide {name} ({flat[name]}), or be 0.")


def _check_experts(flat: Mapping[str, Any], family: Mapping[str, Any]) -> None:
    """Refuse fields of experts that were set where there are none."""
    if flat["model.experts"] or (flat["model.experts"] is None and family["experts"]):
        return
    unread = {name: family[name] for name in ("experts_per_token", "router_normalized")} | {"dispatch": "ragged"}
    for name, usual in unread.items():
        if flat[f"model.{name}"] not in (None, usual):
            raise Refusal(f"model.{name} is {flat[f'model.{name}']!r}, but there are no experts: set model.experts.")
