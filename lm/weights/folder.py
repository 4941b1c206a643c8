"""A folder as Hugging Face publishes models in, a Published out; and back, written whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm.refusal import Refusal
from lm.text import published as tokenizers
from lm.weights import safetensors
from lm.weights.published import Published, Tensor, spelled

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".npz")

_SHARD = 5_000_000_000  # bytes of tensors in a file
_JSON = 25_000_000  # bytes of a file of JSON that is read
_PARTS = 1 << 20  # of one: as objects of Python's they are many times as large


def read(folder: Path, weights: str = "") -> Published:
    """Return what a folder holds; `weights` names its file of tensors where it is not one of the usual names.

    Raises:
      Refusal: no config.json or no safetensors (pickles are not read), or files that are not what they should be.
    """
    config = json_of(folder / CONFIG)
    generation = json_of(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    if weights:
        tensors = safetensors.read(folder / weights)
    elif (folder / INDEX).is_file():
        tensors = _sharded(folder)
    elif (folder / WEIGHTS).is_file():
        tensors = safetensors.read(folder / WEIGHTS)
    else:
        found = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if found:
            raise pickled(folder / found[0])
        raise Refusal(f"{folder} has no {WEIGHTS} and no {INDEX}.")
    return Published(config, generation, tensors, tokenizers.read(folder, config | generation))


def pickled(path: Path) -> Refusal:
    """Return the refusal of a file that is a pickle, or may be one."""
    return Refusal(
        f"{path} is not read: such a file may run any program when it is opened; only safetensors, GGUF and our own "
        "checkpoints are, so convert it, where you trust it, with Transformers: "
        "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)."
    )


def write(folder: Path, published: Published, shard: int = _SHARD) -> None:
    """Write a folder that Transformers opens; it appears under its name when all of it is written.

    Args:
      folder: that is not there yet.
      published: what to write.
      shard: bytes of tensors in a file; of more there are several files, and an index.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    part.mkdir()
    try:
        _dump(part / CONFIG, published.config)
        if published.generation:
            _dump(part / GENERATION, published.generation)
        if published.tokenizer:
            tokenizers.write(published.tokenizer, part, published.config | published.generation)
        _write_tensors(part, published.tensors, shard)
        os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor], shard: int) -> None:
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > shard:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    count = len(groups)
    files = [WEIGHTS if count == 1 else f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    for file, group in zip(files, groups, strict=True):
        safetensors.write(folder / file, group)
    if count > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        where = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        _dump(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _sharded(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder whose index says in which file each is."""
    where = json_of(folder / INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise Refusal(f"{folder / INDEX} has no weight_map of names.")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(where.values())):
        if Path(file).name != file or not file.endswith(".safetensors") or not (folder / file).is_file():
            raise Refusal(f"{folder / INDEX} names {spelled(file)}: it must be a .safetensors file beside it.")
        tensors |= {name: one for name, one in safetensors.read(folder / file).items() if where.get(name) == file}
    if missing := sorted(where.keys() - tensors.keys()):
        raise Refusal(f"{folder / INDEX} names {spelled(missing[0])}, which {where[missing[0]]} does not hold.")
    return tensors


def json_of(path: Path) -> dict[str, Any]:
    """Return the object in a file of unknown origin, of which no more is read than memory and a second hold.

    Raises:
      Refusal: there is no such file, or it is too large, or no JSON object.
    """
    if not path.is_file():
        raise Refusal(f"{path.parent} has no {path.name}.")
    with path.open("rb") as file:
        data = file.read(_JSON + 1)
    if len(data) > _JSON:
        raise Refusal(f"{path} has more than {_JSON:,} bytes.")
    if data.count(b",") > _PARTS:
        raise Refusal(f"{path} has more than {_PARTS:,} parts.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(f"{path} is not JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(f"{path} holds no JSON object.")
    return value


def _dump(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
