"""A GGUF file's metadata in, the config.json that says the same out; and back. The rows are in gguf_names.py."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lm.families.base import COMMON
from lm.families.base import SILENT as SILENT_NAMES
from lm.model.positions import SCALINGS
from lm.refusal import Refusal
from lm.weights.gguf_names import FORMS, NEUTRAL, SILENT, Form

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ROTARY = "rope_freqs.weight"  # by what Llama 3 divides each frequency

_WIDTHS = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_READ = ("general.architecture", "general.alignment", "general.type", "split.count")  # of all architectures
_SCALING = "rope.scaling."
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # of all that Meta published
_LLAMA3_TEXT = 8192  # tokens that they were trained on first
# Attributes that change nothing beside those of SILENT: what only training reads, what other attributes say too.
_UNSAID = re.compile(
    rf"{SILENT_NAMES.names}|router_\w+|summary_\w+|reorder_and_upcast_attn|n_ctx|vocab_size|tie_word_embeddings|"
    r"max_window_layers|_sliding_window_pattern|cache_implementation|intermediate_size"
)


def read(path: Path, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> tuple[Form, dict[str, Any]]:
    """Return the form of a file, and config.json as Transformers would write it for the model in it.

    Args:
      path: of the file, for the sentences.
      metadata: as the scan has it.
      shapes: of the tensors, by their names in the file.

    Raises:
      Refusal: it is of an architecture that is not supported, or what it says cannot be or be followed.
    """
    kind, said = _kind(path, metadata)
    form = FORMS[kind]
    config: dict[str, Any] = {"model_type": kind}
    said.setdefault("attention.head_count_kv", said.get("attention.head_count"))
    for field in form.fields:
        value = said.pop(field.key, field.absent)
        if not _can_be(value, field.is_number):
            _refuse(path, f"{form.architecture}.{field.key} is {value!r}")
        config[field.attribute] = _shortest(value) if field.is_number else value
    said.pop("attention.head_count_kv", None)
    if (layers := count(form, config, "block_count")) > len(shapes):
        _refuse(path, f"{form.architecture}.block_count is {layers}, and it has {len(shapes)} tensors")
    config |= form.fixed | {"vocab_size": _vocabulary(path, said, shapes)}
    config["tie_word_embeddings"] = HEAD not in shapes
    if "rope_theta" in config:
        config["head_dim"] = _head(path, config, said)
        config["rope_scaling"] = _scaling(path, said)
    if form.windows:
        share = config["hidden_size"] // config["num_attention_heads"]
        config["layer_types"] = _kinds_of_layers(form, layers)
        config["query_pre_attn_scalar"] = _scale(form, layers, share, config["head_dim"])
    for key, value in said.items():
        if key not in SILENT and (key not in NEUTRAL or value != NEUTRAL[key]):
            _refuse(path, f"it says {form.architecture}.{key} = {str(value)[:60]}, which cannot be followed")
    return form, config


def rotary(path: Path, config: dict[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Return `rope_scaling` for a file that has ROTARY, its factors `(head width / 2,)`.

    Raises:
      Refusal: they are not those of a model of Llama 3.
    """
    for text in (_LLAMA3_TEXT, config["max_position_embeddings"]):
        scaling = {
            "rope_type": "llama3",
            "factor": _shortest(float(factors.max())),
            **_LLAMA3,
            "original_max_position_embeddings": text,
        }
        ours = divisors(scaling, config["rope_theta"], config["head_dim"])
        if ours.shape == factors.shape and np.allclose(ours, factors, rtol=1e-5, atol=0):
            return scaling
    _refuse(path, f"its {ROTARY} is not of the form that Llama 3 scales rotary positions by")


def divisors(scaling: Mapping[str, Any], base: float, width: int) -> np.ndarray:
    """Return by what Llama 3 divides each of the `(width / 2,)` frequencies, float32: the model's own rule."""
    rates = base ** (-np.arange(0, width, 2) / width)
    said = SimpleNamespace(
        rotary_factor=scaling["factor"],
        rotary_low=scaling["low_freq_factor"],
        rotary_high=scaling["high_freq_factor"],
        rotary_original_context=scaling["original_max_position_embeddings"],
    )
    return (rates / SCALINGS["llama3"](rates, said)).astype(np.float32)


def write(config: Mapping[str, Any]) -> tuple[Form, dict[str, int | float | str]]:
    """Return the form of a model, and the metadata that says what its config.json says.

    Raises:
      Refusal: a GGUF file cannot hold the model.
    """
    kind = config.get("model_type")
    if kind not in FORMS:
        raise Refusal(f"a GGUF file cannot hold model_type {kind!r}; it can hold {', '.join(FORMS)}.")
    form, given = FORMS[kind], _one_style(config)
    metadata: dict[str, Any] = {}
    if kind == "gpt2" and given.get("n_inner") is None:
        given["n_inner"] = 4 * given["n_embd"]
    for field in form.fields:
        value = given.pop(field.newer, given.pop(field.attribute, field.absent))
        if not _can_be(value, field.is_number):
            raise Refusal(f"a GGUF file of {kind} needs {field.attribute}, which is {value!r} here.")
        metadata[field.key] = float(value) if field.is_number else value
    wanted = {row.name: row.value for row in COMMON} | {"use_bidirectional_attention": False} | form.fixed
    if "rope.freq_base" in metadata:
        heads = metadata["attention.head_count"]
        width = given.pop("head_dim", None) or metadata["embedding_length"] // heads
        metadata |= dict.fromkeys(_WIDTHS, width) | _scaling_out(given, kind)
        metadata["vocab_size"] = config["vocab_size"]
    wanted["layer_types"] = _kinds_of_layers(form, metadata["block_count"])
    if form.windows:
        scale = _scale(form, metadata["block_count"], metadata["embedding_length"] // heads, width)
        wanted |= {"query_pre_attn_scalar": scale, "sliding_window_pattern": form.windows}
    elif given.get("use_sliding_window") is not False:  # else a width may be there, and says nothing
        wanted["sliding_window"] = None
    else:
        given.pop("sliding_window", None)
    for name, value in given.items():
        is_as_wanted = name in wanted and (value == wanted[name] or not (value or wanted[name]))
        if not is_as_wanted and not _UNSAID.fullmatch(name):
            raise Refusal(f"a GGUF file of {kind} cannot say {name} = {value!r}.")
    return form, {f"{form.architecture}.{key}": value for key, value in metadata.items()}


def is_read(key: str) -> bool:
    """Say whether metadata of this name is honoured, or refused where it cannot be."""
    architectures = {form.architecture for form in FORMS.values()}
    return key.partition(".")[0] in {*architectures, "tokenizer"} or key in _READ


def _kind(path: Path, metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the model type, and what the metadata of its architecture says."""
    architecture = metadata.get("general.architecture")
    if metadata.get("general.type", "model") != "model" or metadata.get("split.count", 1) not in (0, 1):
        _refuse(path, "it is no whole model, but a part of one or something beside one")
    known = list(dict.fromkeys(form.architecture for form in FORMS.values()))
    if architecture not in known:
        _refuse(path, f"its architecture is {str(architecture)[:60]!r}; supported are {', '.join(known)}")
    prefix = f"{architecture}."
    said = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    is_mixture = said.get("expert_count", 0) != 0
    for kind, form in FORMS.items():
        if form.architecture == architecture and is_mixture == any(f.key == "expert_count" for f in form.fields):
            return kind, said
    _refuse(path, f"it says {prefix}expert_count = {said['expert_count']!r}, which cannot be followed")


def _can_be(value: Any, is_number: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0 if is_number else isinstance(value, int) and 0 < value < 1 << 31


def _shortest(value: float) -> float:
    """Return the number that a person wrote: files have 32 bits of it."""
    return float(str(np.float32(value)))


def count(form: Form, config: Mapping[str, Any], key: str) -> int:
    """Return a count of config.json by its name in the metadata."""
    (field,) = (field for field in form.fields if field.key == key)
    return config[field.newer if field.newer in config else field.attribute]


def _vocabulary(path: Path, said: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    if EMBEDDING not in shapes:
        _refuse(path, f"it has no {EMBEDDING}")
    rows = shapes[EMBEDDING][0]
    if said.pop("vocab_size", rows) != rows:
        _refuse(path, f"its vocab_size is not that of {EMBEDDING}, {rows}")
    return rows


def _head(path: Path, config: Mapping[str, Any], said: dict[str, Any]) -> int:
    """Return the width of a head, which three entries may say."""
    given = {said.pop(key) for key in _WIDTHS if key in said}
    width = given.pop() if given else config["hidden_size"] // config["num_attention_heads"]
    if given or not _can_be(width, False) or width % 2:
        _refuse(path, f"{', '.join(_WIDTHS)} are not one even number")
    return width


def _scaling(path: Path, said: dict[str, Any]) -> dict[str, Any] | None:
    kind = said.pop(f"{_SCALING}type", "none")
    factor = said.pop(f"{_SCALING}factor", 0.0)
    text = said.pop(f"{_SCALING}original_context_length", None)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn") or not _can_be(factor, True) or factor < 1:
        _refuse(path, f"it says {_SCALING}type = {str(kind)[:60]}, factor = {factor!r}, which cannot be followed")
    scaling = {"rope_type": kind, "factor": _shortest(factor)}
    if kind == "linear" or text is None:
        return scaling
    if not _can_be(text, False):
        _refuse(path, f"it says {_SCALING}original_context_length = {text!r}, which cannot be followed")
    return scaling | {"original_max_position_embeddings": text}


def _scaling_out(given: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the metadata of rotary scaling; that of Llama 3 is a tensor."""
    scaling = given.pop("rope_scaling", None) or {"rope_type": "default"}
    scaling = {name: value for name, value in scaling.items() if value is not None}
    name = scaling.pop("rope_type", None) or scaling.pop("type", None)
    factor = scaling.pop("factor", 1.0)
    text = scaling.pop("original_max_position_embeddings", None)
    if name == "default" and not scaling:
        return {}
    if name == "llama3" and scaling == _LLAMA3 and FORMS[kind].architecture == "llama":
        return {}
    if name in ("linear", "yarn") and not scaling:
        before = {f"{_SCALING}original_context_length": text} if name == "yarn" and text else {}
        return {f"{_SCALING}type": name, f"{_SCALING}factor": float(factor)} | before
    raise Refusal(f"a GGUF file of {kind} cannot say rope_scaling of type {name!r} with {scaling}.")


def _one_style(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the rotary positions of Transformers 5 said as Transformers 4 does."""
    given = dict(config)
    rope = given.pop("rope_parameters", None)
    if rope and "full_attention" in rope:
        given["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        given["rope_theta"] = rope["rope_theta"]
        given["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return given


def _kinds_of_layers(form: Form, layers: int) -> list[str]:
    is_full = lambda layer: not form.windows or (layer + 1) % form.windows == 0
    return ["full_attention" if is_full(layer) else "sliding_attention" for layer in range(layers)]


def _scale(form: Form, layers: int, share: int, width: int) -> int:
    """Return what the queries are divided by the root of; llama.cpp knows it from the number of layers.

    Args:
      form: of the model.
      layers: its number of them.
      share: of a head in the model's width.
      width: of a head.
    """
    return share if layers == form.scaled else width


def _refuse(path: Path, why: str) -> Any:
    raise Refusal(f"{path} cannot be opened: {why}.")
