"""GGUF files in and out, as what a Hugging Face folder is: a config, tensors by their names there, a tokenizer.

Reading: our own scan (gguf_scan.py) reads the file, and the gguf library sees nothing of it but the bytes of single
tensors, to dequantise them. Writing is the library's.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from lm.refusal import Refusal, extra
from lm.text import published as tokenizers
from lm.weights import gguf_config, gguf_scan, gguf_tokenizer, gguf_tokenizer_write
from lm.weights.gguf_config import EMBEDDING, HEAD, count
from lm.weights.gguf_names import PRECISE, Form, Row
from lm.weights.gguf_scan import TYPES, Entry
from lm.weights.published import Published, Tensor

# A file's type → what its general.file_type says, llama.cpp's LLAMA_FTYPE.
WRITTEN = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}

_PLAIN = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
_BLOCKS = {name: (elements, size) for name, elements, size in TYPES.values()}
_CHUNK = 1 << 24  # bytes
_QUANTIZATION = 2  # the version of the blocks' layout


def read(path: Path, say: Callable[[str], None] = lambda words: None) -> Published:
    """Return the model that a GGUF file holds; tensors are dequantised one at a time, when they are read.

    Args:
      path: of the file.
      say: hears which metadata is passed over.

    Raises:
      Refusal: the file is damaged, or says something that cannot be followed.
    """
    library = _library(f"{path} is read by the gguf library")
    metadata, entries = gguf_scan.scan(path)
    if unread := [key for key in metadata if not gguf_config.is_read(key)]:
        say(f"{path}: passed over, as it changes no logits: {', '.join(unread)}")
    form, config = gguf_config.read(path, metadata, {name: entry.shape for name, entry in entries.items()})
    if form.repeats and _repeats(path, entries):
        entries.pop(HEAD)
        config["tie_word_embeddings"] = True
    for name in sorted({entry.type for entry in entries.values()}):
        _check_type(path, library, name)
    if rotary := entries.pop(gguf_config.ROTARY, None):
        factors = _values(path, library, rotary).astype(np.float32)
        config["rope_scaling"] = gguf_config.rotary(path, config, factors)
    tensors = dict(_tensors(path, library, form, config, entries))
    found = gguf_tokenizer.read(path, metadata, config["vocab_size"])
    if found is None:
        return Published(config, {}, tensors, None)
    tokenizer = tokenizers.made(found.files, found.generation, str(path))
    return Published(config, found.generation, tensors, tokenizer)


def write(path: Path, model: Published, type_name: str) -> None:
    """Write a model as a GGUF file, whole or not at all; vectors and what else llama.cpp keeps precise are F32.

    Args:
      type_name: one of WRITTEN. Rows that Q8_0 cannot hold are F16.

    Raises:
      Refusal: a GGUF file cannot hold the model.
    """
    library = _library(f"{path} is written by the gguf library")
    if type_name not in WRITTEN:
        raise Refusal(f"GGUF files are written as {', '.join(WRITTEN)}, not as {type_name!r}.")
    form, metadata = gguf_config.write(model.config)
    parts = _parts(form, model)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    writer = library.GGUFWriter(part, form.architecture)
    writer.add_file_type(WRITTEN[type_name])
    writer.add_quantization_version(_QUANTIZATION)
    for key, value in (metadata | _tokenizer(model)).items():
        _add(writer, key, value)
    types = {piece.name: _type(piece, type_name) for piece in parts}
    for piece in parts:
        elements, size = _BLOCKS[types[piece.name]]
        shape = (*piece.shape[:-1], piece.shape[-1] // elements * size)
        kind = library.GGMLQuantizationType[types[piece.name]]
        writer.add_tensor_info(piece.name, shape, np.dtype(np.uint8), int(np.prod(shape)), kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for piece in parts:
            writer.write_tensor_data(_encoded(piece, library, types[piece.name]))
        writer.close()
        os.replace(part, path)
    finally:
        writer.close()
        part.unlink(missing_ok=True)


def _repeats(path: Path, entries: Mapping[str, Entry]) -> bool:
    """Say whether the head is the embedding once more."""
    if HEAD not in entries or entries[HEAD][:2] != entries[EMBEDDING][:2]:
        return False
    one, other, size = entries[HEAD].start, entries[EMBEDDING].start, entries[HEAD].size
    part = lambda start, at: np.fromfile(path, np.uint8, min(_CHUNK, size - at), offset=start + at)
    return all(np.array_equal(part(one, at), part(other, at)) for at in range(0, size, _CHUNK))


def _library(what: str) -> ModuleType:
    return extra("gguf", "gguf", what)


def _check_type(path: Path, library: ModuleType, name: str) -> None:
    """Refuse a type that the library does not dequantise."""
    try:
        if name not in _PLAIN:
            _dequantised(np.zeros((1, _BLOCKS[name][1]), np.uint8), library, name)
    except (KeyError, NotImplementedError):
        raise Refusal(f"{path} has tensors of type {name}, which cannot be dequantised.") from None


def _dequantised(data: np.ndarray, library: ModuleType, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):  # a scale of a damaged file may be no number
        return library.quants.dequantize(data, library.GGMLQuantizationType[name])


def _values(path: Path, library: ModuleType, entry: Entry) -> np.ndarray:
    """Return a tensor as it lies in the file."""
    data = np.fromfile(path, np.uint8, entry.size, offset=entry.start)
    if data.size != entry.size:
        raise Refusal(f"{path} was cut short while it was read.")
    if entry.type in _PLAIN:
        return data.view(_PLAIN[entry.type]).reshape(entry.shape)
    elements, size = _BLOCKS[entry.type]
    rows = data.reshape(-1, entry.shape[-1] // elements * size)
    return _dequantised(rows, library, entry.type).reshape(entry.shape)


def _tensors(
    path: Path, library: ModuleType, form: Form, config: Mapping[str, Any], entries: Mapping[str, Entry]
) -> Iterator[tuple[str, Tensor]]:
    """Yield Hugging Face's name and the tensor, for all of a file's."""
    rows = {row.theirs: row for row in form.rows}
    for name, entry in entries.items():
        match = re.fullmatch(r"blk\.(0|[1-9]\d{0,8})\.(.+)", name)
        layer = int(match[1]) if match else 0
        row = rows.get(f"blk.{{layer}}.{match[2]}" if match else name)
        if row is None or layer >= count(form, config, "block_count"):
            raise Refusal(f"{path} has {name!r}, which {config['model_type']} has no place for.")
        _check_shape(path, name, form, row, config, entry)
        dtype = _PLAIN[entry.type].name if entry.type in _PLAIN else "float32"
        for expert, one in _experts(row, entry):
            there = _undo(lambda one=one: _values(path, library, one), row, config)
            shape = one.shape[::-1] if row.how == "transpose" else one.shape
            yield row.name.format(layer=layer, expert=expert), Tensor(shape, dtype, there)
    for row in form.rows:
        for layer in range(count(form, config, "block_count") if "{layer}" in row.theirs else 1):
            if (name := row.theirs.format(layer=layer)) not in entries and row.theirs != HEAD:
                raise Refusal(f"{path} has no {name!r}, which {config['model_type']} needs.")


def _check_shape(path: Path, name: str, form: Form, row: Row, config: Mapping[str, Any], entry: Entry) -> None:
    heads = _heads(row, config)
    dimensions = 3 if "{expert}" in row.name else 2 if row.how == "transpose" else len(entry.shape)
    experts = count(form, config, "expert_count") if "{expert}" in row.name else entry.shape[0]
    if len(entry.shape) != dimensions or entry.shape[0] != experts or entry.shape[0] % (2 * heads if heads else 1):
        raise Refusal(f"{path} cannot be opened: {name!r} cannot have the shape {entry.shape}.")


def _experts(row: Row, entry: Entry) -> Iterator[tuple[int, Entry]]:
    """Yield each expert's part of what is one tensor in the file; the whole where there are none."""
    if "{expert}" not in row.name:
        yield 0, entry
        return
    size = entry.size // entry.shape[0]
    for expert in range(entry.shape[0]):
        yield expert, Entry(entry.shape[1:], entry.type, entry.start + expert * size, size)


def _heads(row: Row, config: Mapping[str, Any]) -> int:
    attribute = {"queries": "num_attention_heads", "keys": "num_key_value_heads"}.get(row.how)
    return config[attribute] if attribute else 0


def _undo(values: Callable[[], np.ndarray], row: Row, config: Mapping[str, Any]) -> Callable[[], np.ndarray]:
    """Return how to read a tensor as Hugging Face has it."""
    if row.how == "one":
        return lambda: values() - np.float32(1)
    if row.how == "transpose":
        return lambda: values().T
    if heads := _heads(row, config):
        return lambda: _split_halves(values(), heads)
    return values


def _split_halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Return rows that lay in turns, the first of one half of a head and the first of the other, half by half."""
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _interleave_halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


class _Part(NamedTuple):
    """A tensor as it is to lie in the file. values: () → float array."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], np.ndarray]


def _parts(form: Form, model: Published) -> list[_Part]:
    config, left = model.config, dict(model.tensors)
    if config.get("tie_word_embeddings"):
        left.pop("lm_head.weight", None)
    parts = []
    for row in form.rows:
        for layer in range(count(form, config, "block_count") if "{layer}" in row.name else 1):
            experts = count(form, config, "expert_count") if "{expert}" in row.name else 1
            names = [row.name.format(layer=layer, expert=expert) for expert in range(experts)]
            if all(name in left for name in names):
                parts.append(_part(row.theirs.format(layer=layer), row, [left.pop(name) for name in names], config))
    if left:
        kind = config["model_type"]
        raise Refusal(f"a GGUF file of {kind} has no place for {', '.join(sorted(left)[:5])}.")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if scaling.get("rope_type") == "llama3":
        base = scaling.get("rope_theta", config.get("rope_theta"))
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        parts.append(_Part(gguf_config.ROTARY, (width // 2,), lambda: gguf_config.divisors(scaling, base, width)))
    return parts


def _part(name: str, row: Row, tensors: list[Tensor], config: Mapping[str, Any]) -> _Part:
    shape = tensors[0].shape
    heads = _heads(row, config)
    if row.how == "one":
        return _Part(name, shape, lambda: tensors[0].read().astype(np.float32) + np.float32(1))
    if row.how == "transpose":
        return _Part(name, shape[::-1], lambda: tensors[0].read().T)
    if heads:
        return _Part(name, shape, lambda: _interleave_halves(tensors[0].read(), heads))
    if "{expert}" in row.name:
        return _Part(name, (len(tensors), *shape), lambda: np.stack([tensor.read() for tensor in tensors]))
    return _Part(name, shape, tensors[0].read)


def _type(piece: _Part, type_name: str) -> str:
    if len(piece.shape) == 1 or piece.name.endswith(PRECISE):
        return "F32"
    return "F16" if piece.shape[-1] % _BLOCKS[type_name][0] else type_name


def _encoded(piece: _Part, library: ModuleType, type_name: str) -> np.ndarray:
    """Return a tensor's bytes.

    Raises:
      Refusal: a number is beyond what the type holds.
    """
    values = np.ascontiguousarray(piece.values(), np.float32)
    with np.errstate(over="ignore"):
        data = library.quants.quantize(values, library.GGMLQuantizationType[type_name])
    if type_name == "F16" and not np.isfinite(data).all() and np.isfinite(values).all():
        raise Refusal(f"{piece.name} has numbers beyond what F16 holds, 65504: write BF16 or F32.")
    return np.ascontiguousarray(data).view(np.uint8)


def _tokenizer(model: Published) -> dict[str, Any]:
    """Return the metadata of a model's tokenizer."""
    if model.tokenizer is None:
        return {}
    return gguf_tokenizer_write.write(model.tokenizer, model.config | model.generation, model.config["vocab_size"])


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
        return
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds[type(value)](key, value)
