"""Every field of a config: name → default, meaning, allowed values, mark. Nothing else is configuration."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict

IDENTITY = "identity"  # changes the numbers: a resume must have it equal
HORIZON = "horizon"  # may grow when a finished run is continued
FREE = "free"  # may change at any time

_LARGEST = 2**53  # of whole numbers: what a float still holds exactly


class Rule(NamedTuple):
    """What a field may hold: in words, and as a predicate on a value of the right type."""

    words: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """One field. `kind` is the type of its values; a default of None is a value still to be derived."""

    default: Any
    meaning: str
    rule: Rule
    mark: str = IDENTITY
    kind: type | None = None
    element: type | None = None  # of a tuple's elements

    @property
    def type(self) -> type:
        return self.kind or type(self.default)


def at_least(low: float) -> Rule:
    return Rule(f"at least {low}", lambda value: value >= low)


def above(low: float) -> Rule:
    return Rule(f"above {low}", lambda value: value > low)


def within(low: float, high: float) -> Rule:
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def fraction() -> Rule:
    return Rule("at least 0 and below 1", lambda value: 0 <= value < 1)


def one_of(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda value: value in names)


def spelled(words: str, pattern: str) -> Rule:
    return Rule(words, lambda value: re.fullmatch(pattern, value, re.DOTALL) is not None)


def all_regex() -> Rule:
    def compiles(patterns: tuple[str, ...]) -> bool:
        try:
            return all(re.compile(pattern) for pattern in patterns)
        except re.error:
            return False

    return Rule("regular expressions", compiles)


ANY_TEXT = Rule("any text", lambda value: True)
EITHER = Rule("True or False", lambda value: True)
DTYPE = one_of("float32", "bfloat16")

FIELDS: dict[str, Field] = {
    "seed": Field(0, "seed of initialisation, data order and dropout", within(0, 2**31 - 1)),
    # data: text → batches
    "data.source": Field(
        "embedded:code",
        "text to learn from: Python's own standard library, or files (.txt, .jsonl; .gz of both)",
        spelled("embedded, embedded:prose, embedded:code or files:GLOB", r"embedded(:(prose|code))?|files:.+"),
    ),
    "data.text_field": Field("text", "the field of a .jsonl line that holds its text", spelled("a name", ".+")),
    "data.tokenizer": Field(
        "bpe:4096",
        "what text is cut into; learned from the training split",
        spelled(
            "byte, char or bpe:SIZE with SIZE of at least 258",
            r"byte|char|bpe:(25[89]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,6})",
        ),
    ),
    "data.batch_size": Field(16, "sequences in a step, over all devices", at_least(1)),
    "data.valid_fraction": Field(0.05, "share of the text held out for validation", within(0.0001, 0.5)),
    "data.cross_records": Field(False, "let attention look into the records before in the same window", EITHER),
    "data.store": Field("~/.cache/lm/store", "folder of the token stores", spelled("a folder", ".+"), FREE),
    # model
    "model.family": Field("gpt2", "the architecture whose switches fill those left unset", one_of("gpt2", "llama")),
    "model.context": Field(256, "tokens in a window", at_least(2)),
    "model.width": Field(256, "size of the residual stream", at_least(1)),
    "model.layers": Field(4, "number of blocks", at_least(1)),
    "model.heads": Field(4, "query heads", at_least(1)),
    "model.kv_heads": Field(None, "key and value heads; unset: as many as heads", at_least(1), kind=int),
    "model.head_width": Field(None, "size of a head; unset: width / heads", at_least(1), kind=int),
    "model.feedforward_width": Field(
        None,
        "hidden size of the feed-forward; unset: 4 × width, or 8/3 × width (to a multiple of 64) when gated",
        at_least(1),
        kind=int,
    ),
    "model.norm": Field(None, "normalisation", one_of("layer", "rms"), kind=str),
    "model.norm_epsilon": Field(None, "added to the variance", above(0), kind=float),
    "model.positions": Field(None, "how order enters", one_of("learned", "rotary"), kind=str),
    "model.rotary_base": Field(None, "base of the rotary wavelengths", above(1), kind=float),
    "model.activation": Field(None, "of the feed-forward", one_of("gelu", "gelu_tanh", "silu"), kind=str),
    "model.gated": Field(None, "feed-forward with a gate (GLU)", EITHER, kind=bool),
    "model.bias": Field(None, "biases in projections and layer norms", EITHER, kind=bool),
    "model.tied": Field(None, "the head shares the embedding's weights", EITHER, kind=bool),
    "model.dropout": Field(0.0, "rate, after the embedding and after each branch", fraction()),
    "model.init_std": Field(0.02, "standard deviation of initial weights (branch outputs: / √(2 layers))", above(0)),
    "model.vocabulary": Field(None, "number of token ids; unset: the tokenizer's", at_least(2), kind=int),
    "model.vocabulary_multiple": Field(128, "embedding rows are padded to a multiple of this", at_least(1)),
    "model.dtype": Field("float32", "dtype of activations and matrix products", DTYPE),
    "model.parameter_dtype": Field("float32", "dtype of parameters and optimizer moments", DTYPE),
    "model.softmax_dtype": Field("float32", "dtype of attention's softmax", DTYPE),
    "model.norm_dtype": Field("float32", "dtype inside norms", DTYPE),
    "model.logits_dtype": Field("float32", "dtype of logits and of the loss", DTYPE),
    "model.remat": Field(
        "none",
        "what the backward pass computes again: nothing, all but matrix products, everything",
        one_of("none", "dots", "full"),
        FREE,
    ),
    "model.unroll": Field(
        0, "blocks per iteration of the layer scan; 0: all on CPU and GPU, 1 on TPU", at_least(0), FREE
    ),
    # objective
    "objective.name": Field("causal", "what is predicted", one_of("causal")),
    "objective.chunk_tokens": Field(4096, "most tokens whose logits exist at once", at_least(1), FREE),
    # optimizer
    "optimizer.name": Field("adamw", "the update rule", one_of("adamw")),
    "optimizer.b1": Field(0.9, "decay of the first moment", fraction()),
    "optimizer.b2": Field(0.95, "decay of the second moment", fraction()),
    "optimizer.epsilon": Field(1e-8, "added to the root of the second moment", above(0)),
    "optimizer.weight_decay": Field(0.1, "decoupled decay, times the learning rate", at_least(0)),
    "optimizer.no_decay": Field(
        ("bias$", "scale$"), "parameters whose path matches one of these are not decayed", all_regex(), element=str
    ),
    "optimizer.clip": Field(1.0, "largest global norm of the gradient; 0: no clipping", at_least(0)),
    # schedule
    "schedule.name": Field("cosine", "shape after warmup", one_of("constant", "cosine", "linear")),
    "schedule.peak": Field(1e-3, "learning rate at the end of warmup", above(0)),
    "schedule.final": Field(0.0, "learning rate at the last step (cosine, linear)", at_least(0)),
    "schedule.warmup_steps": Field(None, "steps of linear warmup from 0; unset: none", at_least(0), kind=int),
    "schedule.warmup_fraction": Field(None, "warmup as a share of train.steps", within(0, 1), kind=float),
    # train
    "train.steps": Field(None, "length of the run in steps", at_least(1), HORIZON, kind=int),
    "train.tokens": Field(None, "length of the run in tokens, instead of steps", at_least(1), HORIZON, kind=int),
    "train.epochs": Field(
        None, "length in passes over the training text, instead of steps", above(0), HORIZON, kind=float
    ),
    "train.accumulate": Field(1, "micro-batches that a step's batch is computed in", at_least(1)),
    "train.log_every": Field(10, "steps between rows of metrics.jsonl", at_least(1), FREE),
    "train.evaluate_every": Field(
        500, "steps between full passes over the validation text; 0: at the end", at_least(0), FREE
    ),
    "train.checkpoint_every": Field(500, "steps between checkpoints; 0: at the end", at_least(0), FREE),
    "train.sample_every": Field(500, "steps between samples; 0: at the end", at_least(0), FREE),
    "train.sample_prompt": Field("", "text that the samples continue; empty: a record's beginning", ANY_TEXT, FREE),
    "train.keep_latest": Field(2, "checkpoints kept, newest first", at_least(1), FREE),
    "train.keep_best": Field(1, "checkpoints kept for their validation loss", at_least(0), FREE),
    "train.skip_limit": Field(5, "non-finite steps in a row before the run stops", at_least(1), FREE),
    "train.profile_steps": Field(
        (),
        "first and last step of a JAX profile, written to WORKDIR/profile; (): none",
        Rule(
            "() or (first, last) with 2 ≤ first ≤ last",
            lambda value: not value or (len(value) == 2 and 2 <= value[0] <= value[1]),
        ),
        FREE,
        element=int,
    ),
    # parallel
    "parallel.mesh.data": Field(
        -1,
        "devices along which rows are split; -1: the rest",
        Rule("-1 or at least 1", lambda v: v == -1 or v >= 1),
        FREE,
    ),
    "parallel.mesh.fsdp": Field(
        1,
        "devices along which rows and parameters are split; -1: the rest",
        Rule("-1 or at least 1", lambda v: v == -1 or v >= 1),
        FREE,
    ),
    "parallel.matmul_precision": Field(
        "default",
        "precision of float32 matrix products (on TPU the default rounds to bfloat16)",
        one_of("default", "high", "highest"),
    ),
    # sample: how text is drawn
    "sample.temperature": Field(0.8, "divides the logits; 0: the likeliest token", at_least(0), FREE),
    "sample.top_k": Field(0, "draw among this many likeliest tokens; 0: all", at_least(0), FREE),
    "sample.top_p": Field(
        1.0,
        "draw among the likeliest tokens that hold this much probability",
        Rule("above 0 and at most 1", lambda value: 0 < value <= 1),
        FREE,
    ),
    "sample.sequences": Field(1, "texts per prompt", at_least(1), FREE),
    "sample.max_new_tokens": Field(256, "most tokens to add", at_least(1), FREE),
    "sample.seed": Field(0, "seed of the draws", within(0, 2**31 - 1), FREE),
}


def defaults(section: str = "") -> ml_collections.ConfigDict:
    """Return a locked config of all default values, or only those of one section."""
    config = ml_collections.ConfigDict()
    for name, field in FIELDS.items():
        *sections, leaf = name.split(".")
        node = config
        for part in sections:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        node[leaf] = config_dict.placeholder(field.type) if field.default is None else field.default
    return (config[section] if section else config).lock()


def complaint(name: str, value: Any) -> str:
    """Return the sentence that refuses `value` for field `name`, or nothing when it is allowed."""
    field = FIELDS[name]
    if value is None and field.default is None:
        return ""
    kind = field.type
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        value = float(value)
    if type(value) is not kind:
        return f"{name} is {value!r}: it must be {field.rule.words}, of type {kind.__name__}."
    if kind is tuple and not all(type(item) is field.element for item in value):
        return f"{name} is {value!r}: its elements must be of type {field.element.__name__} ({field.rule.words})."
    if kind is int and abs(value) >= _LARGEST:
        return f"{name} is {value!r}: it must be {field.rule.words}, and below 2**53."
    if (kind is float and not math.isfinite(value)) or not field.rule.holds(value):
        return f"{name} is {value!r}: it must be {field.rule.words}."
    return ""
