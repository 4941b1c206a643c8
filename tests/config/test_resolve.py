"""Good configs are filled and frozen; each bad one is refused with one sentence that names field and value."""

import math
import re
import time

import pytest

from lm.config import defaults, parse_arg
from lm.config.data import parts
from lm.config.field import FREE, HORIZON, IDENTITY
from lm.config.files import from_json
from lm.config.objective import USUAL
from lm.config.resolve import bind, check_names, differences, flatten, resolve
from lm.config.schema import FIELDS
from lm.families.catalog import FAMILIES, switches
from lm.refusal import Refusal


def given(overrides):
    """Return a plain nested dict of the defaults, 20 steps and the overrides, of any type."""
    config = {}
    for name, value in (flatten(defaults()) | {"train.steps": 20} | overrides).items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return config


ENTRANCES = {
    "resolve": lambda overrides: resolve(given(overrides)),
    "names": check_names,
    "json": from_json,
    "bind": lambda overrides, **facts: bind(resolve(given(overrides)), **({"vocabulary": 61, "tokens": 997} | facts)),
    "arg": parse_arg,
}

_BOTH = {"model.architecture": "encoder_decoder", "objective.name": "span"}
_CLASSES = {"objective.name": "classify", "objective.labels": ("a", "b"), "data.source": "embedded:kinds"}
_ROBERTA = {"model.family": "roberta", "objective.name": "masked"}

# (what resolve is given, the field that the sentence must name, what else it must show)
FIELD_TABLE = [
    # one of the two is not read
    ({"data.source": "embedded", "data.mixture": ("files:a=1",)}, "data.source", "'embedded'", "data.mixture"),
    ({"data.end_token": "a\nb"}, "data.end_token", "one line"),
    ({"data.tokenizer": "file:a\nb"}, "data.tokenizer", "file:PATH"),
    ({"model.token_dropout": 0.1, "model.value_embeddings": 1}, "model.token_dropout", "0.1", "value_embeddings"),
    (
        {"optimizer.name": "ademamix", "optimizer.slow_warmup_steps": 5, "optimizer.b1": 0.0},
        "optimizer.b1",
        "0.0",
        "slow_warmup_steps",
    ),
    # no such field: the nearest one is shown
    ({"model.widht": 3}, "model.widht", "'model.width'"),
    ({"optimiser.name": "adamw"}, "optimiser.name", "'optimizer.name'"),
    ({"data.batchsize": 3}, "data.batchsize", "'data.batch_size'"),
    ({"seeed": 3}, "seeed", "'seed'"),
    ({"zzzzzzzz": 3}, "zzzzzzzz", "no config field"),
    # of another type
    ({"model.width": True}, "model.width", "True", "int"),
    ({"model.width": 24.0}, "model.width", "24.0", "int"),
    ({"model.width": "24"}, "model.width", "'24'", "int"),
    ({"model.width": None}, "model.width", "None"),
    ({"model.kv_heads": 2.0}, "model.kv_heads", "2.0", "int"),
    ({"train.steps": "20"}, "train.steps", "'20'", "int"),
    ({"train.tokens": 1e6, "train.steps": None}, "train.tokens", "1000000.0", "int"),
    ({"schedule.peak": True}, "schedule.peak", "True", "float"),
    ({"schedule.peak": "1e-3"}, "schedule.peak", "'1e-3'", "float"),
    ({"model.gated": 1}, "model.gated", "1", "bool"),
    ({"data.cross_records": "no"}, "data.cross_records", "'no'", "bool"),
    ({"data.source": 3}, "data.source", "3", "str"),
    ({"data.mixture": "embedded=1"}, "data.mixture", "'embedded=1'", "tuple"),
    ({"data.mixture": ("embedded",)}, "data.mixture", "'SOURCE=NUMBER'"),
    ({"data.mixture": ("embedded=-1",)}, "data.mixture", "at least 0"),
    ({"data.mixture": ("embeded=1",)}, "data.mixture", "'embeded'", "files:GLOB"),
    ({"data.mixture": ("embedded=1", "embedded=2")}, "data.mixture", "'embedded' twice"),
    ({"data.mixture": ("embedded:code=0", "embedded:prose=0")}, "data.mixture", "above 0"),
    ({"data.mixture": ("embedded:code=1234567", "embedded:prose=1")}, "data.mixture", "1,234,568 samples"),
    ({"data.source": "embedded:summaries"}, "data.source", "'embedded:summaries' holds pairs", "'causal'"),
    ({"data.mixture": ("files:a=1", "embedded:kinds=0")}, "data.source", "'embedded:kinds' holds pairs", "'causal'"),
    ({"objective.name": "masked"}, "objective.name", "'masked'", "model.architecture", "'decoder'", "encoder"),
    ({"model.architecture": "encoder"}, "objective.name", "'causal'", "'encoder'", "decoder"),
    ({"objective.mask_random": 0.7, "objective.mask_kept": 0.6}, "objective.mask_random", "1.2999999999999998", "1"),
    ({"objective.prefix": True}, "objective.prefix", "True", "'causal'", "seq2seq"),
    ({"objective.labels": ("a", "b")}, "objective.labels", "2 texts", "model.labels", "None"),
    (_CLASSES | {"objective.labels": ()}, "objective.labels", "()", "'classify' needs the texts"),
    (
        _CLASSES | {"objective.labels": (), "model.head": "masked"},
        "objective.labels",
        "()",
        "'classify' needs the texts",
    ),
    (_CLASSES | {"model.head": "masked"}, "model.head", "'masked'", "name is 'classify'", "unset"),
    (_CLASSES | {"model.head": "none"}, "model.head", "'none'", "'classify'", "unset"),
    (_CLASSES | {"model.labels": 3}, "objective.labels", "2 texts", "model.labels is 3"),
    *(
        ({"objective.name": name, "model.positions": "relative"} | more, "model.positions", f"{name!r}", "'rotary'")
        for name, more in (
            ("prefix", {}),
            ("span", {}),
            ("mixture", {}),
            ("seq2seq", {"objective.prefix": True, "data.source": "embedded:summaries"}),
        )
    ),
    ({"objective.labels": ("a", "a")}, "objective.labels", "('a', 'a')", "none twice"),
    ({"objective.denoisers": ("0.15=1",)}, "objective.denoisers", "'RATE:LENGTH=WEIGHT'"),
    ({"objective.denoisers": ("1.5:3=1",)}, "objective.denoisers", "rates between 0 and 1"),
    ({"objective.denoisers": ("0.5:3=0",)}, "objective.denoisers", "a weight above 0"),
    ({"objective.denoisers": ("0.5:0.5=1",)}, "objective.denoisers", "lengths of at least 1"),
    ({"objective.noise_length": 0.0}, "objective.noise_length", "0.0", "at least 1"),
    ({"data.sentinels": -1}, "data.sentinels", "-1", "at least 0"),
    ({"data.unit": "pair"}, "data.unit", "'pair'", "objective.name 'causal'", "'text'"),
    ({"data.unit": "window"}, "data.unit", "'window'", "text, pair"),
    ({"optimizer.no_decay": "bias$"}, "optimizer.no_decay", "'bias$'", "tuple"),
    ({"optimizer.no_decay": ["bias$"]}, "optimizer.no_decay", "['bias$']", "tuple"),
    ({"optimizer.no_decay": ("bias$", 3)}, "optimizer.no_decay", "('bias$', 3)", "str"),
    ({"train.profile_steps": ("1", "2")}, "train.profile_steps", "('1', '2')", "int"),
    ({"model.windows": 3}, "model.windows", "3", "tuple"),
    ({"model.windows": (3, 0.5)}, "model.windows", "(3, 0.5)", "int"),
    ({"model.windows": (True,)}, "model.windows", "(True,)", "int"),
    ({"model.qk_norm": 1}, "model.qk_norm", "1", "bool"),
    ({"model.residual_scalars": "yes"}, "model.residual_scalars", "'yes'", "bool"),
    ({"model.zero_init": None}, "model.zero_init", "None", "bool"),
    ({"model.value_embeddings": True}, "model.value_embeddings", "True", "int"),
    ({"model.relative_distance": 9.0}, "model.relative_distance", "9.0", "int"),
    # not a number, or no end
    ({"schedule.peak": math.nan}, "schedule.peak", "nan", "above 0"),
    ({"schedule.peak": math.inf}, "schedule.peak", "inf"),
    ({"optimizer.clip": math.nan}, "optimizer.clip", "nan"),
    ({"optimizer.weight_decay": math.inf}, "optimizer.weight_decay", "inf"),
    ({"sample.temperature": -math.inf}, "sample.temperature", "-inf"),
    # out of range
    ({"seed": -1}, "seed", "-1", "2147483647"),
    ({"seed": 2**31}, "seed", "2147483648"),
    ({"data.batch_size": 0}, "data.batch_size", "0", "at least 1"),
    ({"data.valid_fraction": 0.0}, "data.valid_fraction", "0.0", "0.0001"),
    ({"data.valid_fraction": 0.51}, "data.valid_fraction", "0.51", "0.5"),
    ({"model.context": 1}, "model.context", "1", "at least 2"),
    ({"model.layers": -3}, "model.layers", "-3", "at least 1"),
    ({"model.dropout": 1.0}, "model.dropout", "1.0", "below 1"),
    ({"model.dropout": 1.5}, "model.dropout", "1.5", "below 1"),
    ({"model.norm_epsilon": 0}, "model.norm_epsilon", "0", "above 0"),
    ({"model.token_dropout": 1.0}, "model.token_dropout", "1.0", "below 1"),
    ({"model.stochastic_depth": -0.1}, "model.stochastic_depth", "-0.1", "at least 0"),
    ({"model.windows": (3, -1)}, "model.windows", "(3, -1)", "at least 0"),
    ({"model.value_embeddings": -1}, "model.value_embeddings", "-1", "at least 0"),
    ({"model.attention_soft_cap": -1.0}, "model.attention_soft_cap", "-1.0", "at least 0"),
    ({"model.logits_soft_cap": math.nan}, "model.logits_soft_cap", "nan", "at least 0"),
    ({"model.relative_buckets": 1}, "model.relative_buckets", "1", "at least 2"),
    ({"model.relative_distance": 1}, "model.relative_distance", "1", "at least 2"),
    ({"model.init_std": 0.0}, "model.init_std", "0.0", "above 0"),
    ({"model.rotary_base": 1.0}, "model.rotary_base", "1.0", "above 1"),
    ({"optimizer.b2": 1}, "optimizer.b2", "1", "below 1"),
    ({"schedule.peak": -1e-3}, "schedule.peak", "-0.001", "above 0"),
    ({"schedule.warmup_fraction": 1.1}, "schedule.warmup_fraction", "1.1", "from 0 to 1"),
    ({"train.steps": 0}, "train.steps", "0", "at least 1"),
    ({"train.steps": -5}, "train.steps", "-5", "at least 1"),
    ({"train.epochs": 0.0, "train.steps": None}, "train.epochs", "0.0", "above 0"),
    ({"train.profile_steps": (3,)}, "train.profile_steps", "(3,)", "(first, last)"),
    ({"train.profile_steps": (5, 3)}, "train.profile_steps", "(5, 3)", "first ≤ last"),
    ({"parallel.mesh.data": 0}, "parallel.mesh.data", "0", "-1"),
    ({"parallel.mesh.fsdp": -2}, "parallel.mesh.fsdp", "-2", "-1"),
    ({"sample.top_p": 0.0}, "sample.top_p", "0.0", "above 0"),
    ({"optimizer.no_decay": ("(",)}, "optimizer.no_decay", "('(',)", "regular expressions"),
    # not among the choices, or misspelled
    ({"model.family": "gpt3"}, "model.family", "'gpt3'", "gpt2", "llama"),
    ({"model.norm": "batch"}, "model.norm", "'batch'", "layer", "rms"),
    ({"model.wiring": "paralel"}, "model.wiring", "'paralel'", "pre", "post", "sandwich", "parallel"),
    ({"model.positions": "rope"}, "model.positions", "'rope'", "none", "rotary", "alibi", "relative"),
    ({"model.activation": "swish"}, "model.activation", "'swish'", "relu_squared"),
    ({"model.init": "xavier"}, "model.init", "'xavier'", "gpt2", "fan_in", "small"),
    ({"model.dtype": "float16"}, "model.dtype", "'float16'", "bfloat16"),
    ({"optimizer.name": "AdamW"}, "optimizer.name", "'AdamW'", "adamw"),
    ({"schedule.name": "cosin"}, "schedule.name", "'cosin'", "cosine"),
    ({"objective.name": ""}, "objective.name", "''", "causal"),
    ({"data.source": "embedded:music"}, "data.source", "'embedded:music'", "embedded:prose"),
    ({"data.source": "files:"}, "data.source", "'files:'", "files:GLOB"),
    ({"data.source": "corpus.txt"}, "data.source", "'corpus.txt'", "files:GLOB"),
    ({"data.source": "tfds:"}, "data.source", "'tfds:'", "tfds:NAME[/CONFIG][:VERSION]"),
    ({"data.source": "tfds:lm1b:1"}, "data.source", "'tfds:lm1b:1'", "tfds:NAME[/CONFIG][:VERSION]"),
    ({"data.source": "tfds:../lm1b"}, "data.source", "'tfds:../lm1b'", "tfds:NAME[/CONFIG][:VERSION]"),
    ({"data.normalization": "NFC"}, "data.normalization", "'NFC'", "none, nfc, nfd, nfkc, nfkd"),
    ({"data.tokenizer": "bytes"}, "data.tokenizer", "'bytes'", "byte, char"),
    ({"data.tokenizer": "unigram:257"}, "data.tokenizer", "'unigram:257'", "258"),
    ({"data.tokenizer": "wordpiece"}, "data.tokenizer", "'wordpiece'", "wordpiece:SIZE"),
    ({"data.tokenizer": "file:"}, "data.tokenizer", "'file:'", "file:PATH"),
    ({"data.tokenizer": "sentencepiece:"}, "data.tokenizer", "'sentencepiece:'", "sentencepiece:PATH"),
    ({"data.tokenizer": "bpe"}, "data.tokenizer", "'bpe'", "bpe:SIZE"),
    ({"data.tokenizer": "bpe:257"}, "data.tokenizer", "'bpe:257'", "258"),
    ({"data.tokenizer": "bpe:0001"}, "data.tokenizer", "'bpe:0001'", "258"),
    ({"data.tokenizer": "bpe:4k"}, "data.tokenizer", "'bpe:4k'", "258"),
    ({"data.text_field": ""}, "data.text_field", "''", "a name"),
    # each allowed, not together
    ({"model.heads": 7, "model.width": 24}, "model.heads", "7", "model.width (24)"),
    ({"model.heads": 6, "model.width": 24, "model.kv_heads": 4}, "model.kv_heads", "4", "model.heads (6)"),
    ({"model.heads": 8, "model.width": 24, "model.family": "llama"}, "model.head_width", "3", "even"),
    ({"model.family": "gpt_neox", "model.head_width": 6}, "model.head_width", "6", "model.rotary_share is 0.25"),
    ({"model.positions": "alibi", "model.rotary_share": 0.5}, "model.rotary_share", "0.5", "'alibi'"),
    ({"model.rotary_window_base": 20.0}, "model.rotary_window_base", "20.0", "'learned'"),
    ({"model.rotary_scaling": "linear"}, "model.rotary_scaling", "'linear'", "model.positions='rotary'"),
    ({"model.family": "llama", "model.rotary_factor": 2.0}, "model.rotary_factor", "2.0", "model.rotary_scaling"),
    (
        {"model.family": "llama", "model.rotary_scaling": "linear", "model.rotary_low": 2.0},
        "model.rotary_low",
        "2.0",
        "it is for llama3",
    ),
    (
        {"model.family": "llama", "model.rotary_scaling": "llama3", "model.rotary_low": 4.0},
        "model.rotary_high",
        "4.0",
        "model.rotary_low (4.0)",
    ),
    (
        {"model.family": "llama", "model.rotary_scaling": "yarn", "model.rotary_slow": 32.0},
        "model.rotary_fast",
        "32.0",
        "model.rotary_slow (32.0)",
    ),
    (
        {"model.family": "llama", "model.rotary_scaling": "ntk", "model.rotary_attention": 1.5},
        "model.rotary_attention",
        "1.5",
        "it is for yarn",
    ),
    ({"model.family": "llama", "model.head_width": 2, "model.rotary_scaling": "ntk"}, "'ntk'", "2 numbers", "needs 4"),
    ({"model.positions": "learned", "model.rotary_base": 500.0}, "model.rotary_base", "500.0", "learned"),
    ({"model.rotary_base": 500.0}, "model.rotary_base", "500.0", "learned"),
    (
        {"model.family": "llama", "model.positions": "alibi", "model.rotary_base": 500.0},
        "model.rotary_base",
        "500.0",
        "'alibi'",
    ),
    ({"model.positions": "none", "model.rotary_base": 500.0}, "model.rotary_base", "500.0", "'none'"),
    # set, but not read
    ({"model.relative_buckets": 16}, "model.relative_buckets", "16", "'learned'", "it is for relative"),
    ({"model.relative_distance": 3}, "model.relative_distance", "3", "'learned'", "it is for relative"),
    ({"model.dispatch": "capacity"}, "model.dispatch", "'capacity'", "set model.experts"),
    ({"model.experts_per_token": 3}, "model.experts_per_token", "3", "set model.experts"),
    ({"model.router_normalized": False}, "model.router_normalized", "False", "set model.experts"),
    ({"model.family": "mixtral", "model.experts": 0, "model.dispatch": "capacity"}, "model.dispatch", "set model.exp"),
    ({"model.experts": 4, "model.expert_capacity": 2.0}, "model.expert_capacity", "2.0", "'ragged'", "for capacity"),
    ({"objective.mask_rate": 0.3}, "objective.mask_rate", "0.3", "'causal'", "it is for masked"),
    (_BOTH | {"objective.mask_kept": 0.3}, "objective.mask_kept", "0.3", "'span'", "it is for masked"),
    (_ROBERTA | {"objective.noise_rate": 0.3}, "objective.noise_rate", "0.3", "'masked'", "it is for span"),
    ({"objective.noise_length": 2.0}, "objective.noise_length", "2.0", "'causal'", "it is for span"),
    (_BOTH | {"objective.denoisers": ("0.5:3=1",)}, "objective.denoisers", "0.5:3=1", "'span'", "it is for mixture"),
    ({"model.windows": (3, 0, 5, 7, 0)}, "model.windows", "(3, 0, 5, 7, 0)", "model.layers (4)"),
    ({"model.value_embeddings": 5}, "model.value_embeddings", "5", "model.layers (4)"),
    ({"model.positions": "relative", "model.relative_distance": 16}, "model.relative_distance", "16", "(16)"),
    (
        {"model.positions": "relative", "model.relative_buckets": 7, "model.relative_distance": 3},
        "model.relative_distance",
        "3",
        "(3)",
    ),
    ({"model.unroll": 3}, "model.unroll", "3", "model.layers (4)"),
    # of encoders and heads
    (_BOTH | {"model.encoder_layers": 3, "model.unroll": 2}, "model.unroll", "2", "model.encoder_layers (3)"),
    ({"model.encoder_layers": 3}, "model.encoder_layers", "3", "'decoder'"),
    (_BOTH | {"model.token_types": 2}, "model.token_types", "2", "encoder_decoder"),
    (_BOTH | {"model.positions": "relative", "model.relative_buckets": 3}, "model.relative_buckets", "3", "at least 4"),
    ({"model.positions": "rotary", "model.position_offset": 2}, "model.position_offset", "2", "'rotary'"),
    ({"model.head": "classify"}, "model.labels", "None", "'classify' needs labels"),
    ({"model.labels": 3}, "model.labels", "3", "'language'"),
    ({"model.head": "masked", "model.scaled_head": True}, "model.scaled_head", "'masked'", "'language'"),
    ({"train.tokens": 1000}, "train.tokens", "train.steps"),
    ({"train.epochs": 2.0, "train.tokens": 1000, "train.steps": None}, "train.epochs", "train.tokens"),
    ({"train.steps": None}, "train.steps", "train.tokens", "train.epochs"),
    ({"schedule.warmup_steps": 21}, "schedule.warmup_steps", "21", "train.steps (20)"),
    ({"schedule.warmup_steps": 3, "schedule.warmup_fraction": 0.1}, "schedule.warmup_steps", "warmup_fraction"),
    ({"schedule.final": 3e-3}, "schedule.final", "0.003", "schedule.peak (0.001)"),
    ({"train.accumulate": 3}, "train.accumulate", "3", "data.batch_size (16)"),
    ({"parallel.mesh.fsdp": -1}, "parallel.mesh.fsdp", "parallel.mesh.data", "-1"),
    ({"parallel.compile": "pmap", "parallel.mesh.tensor": 2}, "parallel.mesh.tensor", "2", "set it to 1"),
    (
        {"parallel.compile": "pmap", "train.noise_scale": True, "train.accumulate": 2},
        "train.noise_scale",
        "parallel.compile=pmap",
    ),
    # of optimizers, schedules and growing batches
    ({"optimizer.rates": ("embed",)}, "optimizer.rates", "('embed',)", "REGEX=FACTOR"),
    ({"optimizer.rates": ("embed=-1",)}, "optimizer.rates", "('embed=-1',)", "at least 0"),
    ({"optimizer.rates": ("(=1",)}, "optimizer.rates", "('(=1',)", "regular expressions"),
    ({"optimizer.name": "schedule_free", "optimizer.b1": 0.0}, "optimizer.b1", "0.0", "schedule_free"),
    ({"optimizer.name": "schedule_free", "train.ema": 0.9}, "train.ema", "0.9", "schedule_free"),
    ({"train.ema": 0.9, "model.parameter_dtype": "bfloat16"}, "train.ema", "0.9", "'bfloat16'", "'float32'"),
    (
        {"optimizer.name": "schedule_free", "model.parameter_dtype": "bfloat16"},
        "optimizer.name",
        "'schedule_free'",
        "'bfloat16'",
    ),
    ({"train.ema": 1.0}, "train.ema", "1.0", "below 1"),
    ({"train.group_norms": ("[",)}, "train.group_norms", "('[',)", "regular expressions"),
    ({"schedule.points": ("3=0.1", "3=0.2")}, "schedule.points", "('3=0.1', '3=0.2')", "that grow"),
    ({"schedule.points": ("1.5=0.1",)}, "schedule.points", "('1.5=0.1',)", "whole steps"),
    ({"schedule.points": ("1=-0.1",)}, "schedule.points", "('1=-0.1',)", "at least 0"),
    ({"schedule.name": "points"}, "schedule.points", "()", "'STEP=RATE'"),
    (
        {"schedule.name": "points", "schedule.points": ("0=1.0",), "schedule.warmup_steps": 3},
        "schedule.warmup_steps",
        "3",
        "unset",
    ),
    ({"schedule.name": "inverse_sqrt"}, "schedule.warmup_steps", "0", "inverse_sqrt"),
    (
        {"schedule.name": "wsd", "schedule.decay_fraction": 0.5, "schedule.warmup_steps": 11},
        "schedule.decay_fraction",
        "0.5",
        "10 steps",
        "(11)",
        "(20)",
    ),
    ({"schedule.name": "wsd", "schedule.decay_shape": "exponential"}, "schedule.final", "0.0", "exponential"),
    ({"schedule.decay_shape": "square"}, "schedule.decay_shape", "'square'", "sqrt"),
    (
        {"schedule.name": "cosine_restarts", "schedule.cycles": 18, "schedule.warmup_steps": 3},
        "schedule.cycles",
        "18",
        "(17)",
    ),
    ({"train.batch_warmup_steps": 5}, "train.batch_warmup_steps", "5", "train.accumulate"),
    ({"train.noise_scale": True}, "train.noise_scale", "True", "train.accumulate"),
    (
        {"train.noise_scale": True, "train.batch_warmup_steps": 5, "train.accumulate": 2},
        "train.batch_warmup_steps",
        "5",
        "train.noise_scale",
    ),
]

# (entrance, its arguments, its keywords, what the sentence must show)
OTHER_TABLE = [
    ("names", (["model.contex"],), {}, ("model.contex", "'model.context'")),
    ("json", ('{"model.hieght": 3}',), {}, ("model.hieght", "no config field")),
    ("json", ('{"model.width": true}',), {}, ("model.width", "True")),
    ("json", ('{"schedule.peak": NaN}',), {}, ("schedule.peak", "nan")),
    ("json", ('{"optimizer.no_decay": "bias$"}',), {}, ("optimizer.no_decay", "'bias$'", "tuple")),
    ("json", ('{"optimizer.no_decay": 3}',), {}, ("optimizer.no_decay", "3", "tuple")),
    ("json", ('{"train.profile_steps": [1, "2"]}',), {}, ("train.profile_steps", "(1, '2')", "int")),
    ("json", ('{"seed": ',), {}, ("line 1",)),
    ("json", ("[3]",), {}, ("[3]",)),
    ("bind", ({"model.vocabulary": 59},), {}, ("model.vocabulary", "59", "61", "bpe:4096")),
    (
        "bind",
        ({"train.steps": None, "train.epochs": 1.0, "schedule.warmup_steps": 6, "model.context": 13},),
        {},
        ("schedule.warmup_steps", "6", "train.steps (5)"),
    ),
    ("arg", ("9m",), {"size": ("124m", "355m")}, ("'size'", "'9m'", "124m, 355m")),
    ("arg", ("124m,3",), {"size": ("124m", "355m")}, ("'124m,3'", "too many", "size")),
    ("arg", ("width=3",), {"size": "124m"}, ("'width'", "size")),
    ("arg", ("layers=3.5",), {"layers": 3}, ("'layers'", "'3.5'", "int")),
    ("arg", ("fast=maybe",), {"fast": False}, ("'fast'", "'maybe'", "bool")),
]


def table():
    for overrides, *shown in FIELD_TABLE:
        yield "resolve", (overrides,), {}, shown
    yield from OTHER_TABLE


def test_every_bad_config_is_refused_with_one_sentence_naming_field_and_value():
    begun = time.process_time()
    wrong = []
    for entrance, arguments, keywords, shown in table():
        case = f"{entrance} {arguments} {keywords}"
        try:
            ENTRANCES[entrance](*arguments, **keywords)
            wrong.append(f"{case} was accepted")
        except Refusal as refusal:
            sentence = str(refusal)
            if not sentence.endswith(".") or "\n" in sentence or re.search(r"\. [A-Z]", sentence):
                wrong.append(f"{case}: not one sentence: {sentence!r}")
            wrong += [f"{case}: {part!r} is not in {sentence!r}" for part in shown if part not in sentence]
        except Exception as error:
            wrong.append(f"{case}: {error!r}")
    assert not wrong, "\n".join(wrong)
    assert time.process_time() - begun < 2


def test_a_field_that_is_missing_is_named():
    config = given({})
    del config["model"]["width"]
    with pytest.raises(Refusal, match=r"lacks the field 'model\.width'"):
        resolve(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_fill_the_switches_left_unset(family):
    usual = {"model.family": family, "objective.name": USUAL[switches(family)["architecture"]]}
    config = resolve(given(usual))
    for name, value in switches(family).items():
        assert config.model[name] == value
    assert FAMILIES[family].SWITCHES.items() <= switches(family).items()
    unset = {name for name, value in config.model.items() if value is None}
    assert unset <= {"rotary_base", "vocabulary", "encoder_layers", "labels"}
    turned = resolve(given(usual | {"model.bias": not FAMILIES[family].SWITCHES["bias"]}))
    assert turned.model.bias is not config.model.bias


TOKENS = {"train.steps": None, "data.batch_size": 7, "model.context": 13}
GROWING = TOKENS | {"data.batch_size": 8, "train.accumulate": 4, "train.batch_warmup_steps": 6}


@pytest.mark.parametrize(
    ("overrides", "name", "value"),
    [
        ({}, "model.head_width", 64),
        ({}, "model.attention_scale", 1 / 8),
        ({"model.attention_scale": 1}, "model.attention_scale", 1.0),
        ({}, "model.attention_bias", True),
        ({"model.bias": False}, "model.attention_bias", False),
        ({"model.family": "qwen2"}, "model.attention_bias", True),
        ({"model.family": "qwen2"}, "model.bias", False),
        ({"model.family": "gpt_neox"}, "model.rotary_share", 0.25),
        ({"model.family": "gpt_neox", "model.positions": "learned"}, "model.rotary_share", 1.0),
        ({"model.family": "gemma3"}, "model.rotary_window_base", 10000.0),
        ({"model.family": "gemma3", "model.positions": "alibi"}, "model.rotary_window_base", 0.0),
        ({}, "model.kv_heads", 4),
        ({}, "model.feedforward_width", 1024),
        ({"model.family": "llama"}, "model.feedforward_width", 704),  # 8/3 × 256 = 682.7, to a multiple of 64
        ({"model.family": "llama"}, "model.rotary_base", 10000.0),
        ({"model.positions": "rotary"}, "model.rotary_base", 10000.0),
        ({"model.family": "llama", "model.positions": "learned"}, "model.rotary_base", None),
        ({"model.family": "llama", "model.positions": "alibi"}, "model.rotary_base", None),
        ({"model.heads": 7, "model.head_width": 6}, "model.head_width", 6),
        ({}, "model.wiring", "pre"),
        ({"model.family": "llama"}, "model.wiring", "pre"),
        ({"model.family": "llama", "model.wiring": "parallel"}, "model.wiring", "parallel"),
        ({"model.family": "llama"}, "model.positions", "rotary"),
        ({"model.family": "llama", "model.positions": "none"}, "model.positions", "none"),
        ({}, "model.positions", "learned"),
        ({"model.family": "llama"}, "model.qk_norm", False),
        ({"model.family": "llama", "model.qk_norm": True}, "model.qk_norm", True),
        ({}, "model.attention_soft_cap", 0.0),
        ({"model.attention_soft_cap": 50}, "model.attention_soft_cap", 50.0),
        ({"model.family": "llama"}, "model.logits_soft_cap", 0.0),
        ({"model.windows": (3, 0, 5, 7)}, "model.windows", (3, 0, 5, 7)),
        (_BOTH, "model.encoder_layers", 4),
        ({"model.family": "t5", "objective.name": "span"}, "model.scaled_head", True),
        ({"model.family": "t5", "objective.name": "span", "model.tied": False}, "model.scaled_head", False),
        (_ROBERTA, "model.position_offset", 2),
        (_ROBERTA | {"model.positions": "alibi"}, "model.position_offset", 0),
        (_ROBERTA, "model.pooler", False),
        (_ROBERTA | {"model.head": "classify", "model.labels": 3}, "model.pooler", True),
        ({"model.head": "classify", "model.labels": 3}, "model.pooler", False),
        ({"model.positions": "relative", "model.relative_distance": 17}, "model.relative_distance", 17),
        ({"schedule.peak": 1}, "schedule.peak", 1.0),
        ({"schedule.warmup_fraction": 0.33}, "schedule.warmup_steps", 7),
        ({"schedule.warmup_fraction": 0.33}, "schedule.warmup_fraction", None),
        ({}, "schedule.warmup_steps", 0),
        ({"schedule.warmup_steps": 20}, "schedule.warmup_steps", 20),
        ({**TOKENS, "train.tokens": 1001}, "train.steps", 11),  # 11 × 7 × 13
        ({**TOKENS, "train.tokens": 1002}, "train.steps", 12),
        ({**TOKENS, "train.tokens": 1002}, "train.tokens", None),
        ({**GROWING, "train.tokens": 13 * (2 + 2 + 4 + 4 + 6)}, "train.steps", 5),
        ({**GROWING, "train.tokens": 13 * (2 + 2 + 4 + 4 + 6 + 6 + 8 * 3) + 1}, "train.steps", 10),
        ({"parallel.mesh.data": 1, "parallel.mesh.fsdp": -1}, "parallel.mesh.fsdp", -1),
        ({"train.profile_steps": (3, 5)}, "train.profile_steps", (3, 5)),
    ],
)
def test_resolve_fills(overrides, name, value):
    found = flatten(resolve(given(overrides)))[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model.family": "llama", "model.kv_heads": 2, "schedule.warmup_fraction": 0.1},
        {"train.steps": None, "train.tokens": 1001},
        {"train.steps": None, "train.epochs": 2, "schedule.warmup_fraction": 0.25},
        {"model.family": "llama", "model.positions": "learned", "train.profile_steps": (3, 5)},
        {"model.family": "gemma3", "model.positions": "alibi"},
        {"model.family": "gpt_neox", "model.rotary_scaling": "linear", "model.rotary_factor": 2},
        {"model.positions": "relative", "model.windows": (3, 0), "model.qk_norm": True, "model.attention_soft_cap": 5},
    ],
)
def test_resolving_twice_changes_nothing(overrides):
    once = resolve(given(overrides))
    twice = resolve(once)
    assert flatten(twice) == flatten(once) and twice == once
    assert flatten(bind(bind(once, vocabulary=61, tokens=9973), vocabulary=61, tokens=7)) == flatten(
        bind(once, vocabulary=61, tokens=9973)
    )


def test_a_resolved_config_is_frozen():
    config = resolve(given({}))
    with pytest.raises(AttributeError):
        config.model.width = 3
    assert set(flatten(config)) == set(FIELDS)


def test_bind_settles_vocabulary_epochs_and_warmup():
    sizes = {"data.batch_size": 7, "model.context": 13}
    length = {"train.steps": None, "train.epochs": 2.5, "schedule.warmup_fraction": 0.1}
    config = bind(resolve(given(sizes | length)), vocabulary=61, tokens=9100)
    assert (config.train.steps, config.train.epochs) == (250, None)
    assert (config.schedule.warmup_steps, config.schedule.warmup_fraction) == (25, None)
    assert config.model.vocabulary == 61
    assert bind(config, vocabulary=59, tokens=9100).model.vocabulary == 61  # the larger one is kept
    assert bind(resolve(given(length | {"train.epochs": 1e-6})), vocabulary=61, tokens=97).train.steps == 1


def test_an_epoch_of_growing_batches_has_more_steps():
    config = bind(resolve(given(GROWING | {"train.epochs": 2.0})), vocabulary=61, tokens=13 * (24 + 8 * 7) // 2)
    assert config.train.steps == 6 + 7


def test_differences_name_field_old_and_new_of_one_mark():
    old = resolve(given({}))
    new = resolve(given({"schedule.peak": 3e-3, "train.steps": 31, "train.log_every": 7, "model.tied": False}))
    assert differences(old, new, IDENTITY) == ["model.tied: True → False", "schedule.peak: 0.001 → 0.003"]
    assert differences(old, new, HORIZON) == ["train.steps: 20 → 31"]
    assert differences(old, new, FREE) == ["train.log_every: 10 → 7"]
    assert differences(old, old, IDENTITY) == []


def test_what_is_not_bound_yet_is_no_difference():
    unbound = resolve(given({}))
    assert differences(unbound, bind(unbound, vocabulary=61, tokens=997), IDENTITY) == []


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ((), {"embedded:code": 1}),
        (("a=7",), {"a": 1}),
        (("a=0.5", "b=0.75"), {"a": 2, "b": 3}),
        (("a=0.3", "b=0.7", "c=0"), {"a": 3, "b": 7, "c": 0}),
        (("files:x=y/*.txt=1e-3", "b=1"), {"files:x=y/*.txt": 1, "b": 1000}),
        (("a=0.333333", "b=0.666667"), {"a": 333333, "b": 666667}),
        (("a=90", "b=60", "c=30"), {"a": 3, "b": 2, "c": 1}),
    ],
)
def test_a_mixture_is_whole_samples_of_its_shortest_cycle(mixture, expected):
    assert parts("embedded:code", mixture) == expected


def test_another_mixture_is_another_run():
    before, after = (resolve(given({"data.mixture": mixture})) for mixture in ((), ("embedded:prose=1",)))
    assert differences(before, after, IDENTITY) == ["data.mixture: () → ('embedded:prose=1',)"]
