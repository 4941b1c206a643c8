"""A .safetensors file in, its tensors out, each read when it is asked for; tensors in, a file out, one at a time.

The format (https://huggingface.co/docs/safetensors): eight bytes that count the header's, little-endian; the header,
JSON of name → {dtype, shape, data_offsets from the header's end} and "__metadata__"; the tensors, row by row.
Everything that a file says of itself is checked against its size before anything else is believed.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm.refusal import Refusal
from lm.weights.published import Tensor, is_name

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_OTHERS = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # of buffers
_HEADER = 25_000_000  # bytes; the format allows four times that, which as objects of Python's would be a gigabyte
_PARTS = 1 << 20  # of a header
_NAME = 512  # characters
_DIMENSIONS = 8


def read(path: Path) -> dict[str, Tensor]:
    """Return name → Tensor of a file.

    Raises:
      Refusal: the header is not as the format says, or says more than the file holds.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        count = int.from_bytes(file.read(8), "little")
        if size < 8 or count > min(_HEADER, size - 8):
            raise _damaged(path, f"it has {size:,} bytes, and a header of {count:,}")
        data = file.read(count)
    if data.count(b",") > _PARTS:
        raise _damaged(path, f"its header has more than {_PARTS:,} parts")
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, size, name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != end:
            raise _damaged(path, f"{name} begins at byte {start:,} of the tensors, and not at {end:,}")
        end = stop
    if end != size - 8 - count:
        raise _damaged(path, f"its tensors have {end:,} bytes, and it has {size - 8 - count:,} for them")
    begin = 8 + count
    return {name: Tensor(shape, dtype, _reader(path, shape, dtype, begin + start))
            for name, (shape, dtype, start, _) in entries.items()}  # fmt: skip


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in their order, each read, written and let go."""
    spelled = {name: word for word, name in (DTYPES | _OTHERS).items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": spelled[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)  # so that the tensors begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(data).to_bytes(8, "little") + data)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _entry(path: Path, size: int, name: str, entry: Any) -> tuple[tuple[int, ...], str, int, int]:
    """Return shape, dtype, start and stop that the header says of a tensor in a file of `size` bytes."""
    if len(name) > _NAME or not is_name(name):
        raise _damaged(path, f"a tensor is called {name[:60]!r}, which is no name")
    is_count = lambda value: type(value) is int and 0 <= value <= size
    is_counts = lambda values: isinstance(values, list) and all(map(is_count, values))
    if not (isinstance(entry, dict) and is_counts(entry.get("shape")) and is_counts(entry.get("data_offsets"))):
        raise _damaged(path, f"{name} has no shape or no place, or one beyond the file's {size:,} bytes")
    shape, offsets, dtype = tuple(entry["shape"]), entry["data_offsets"], str(entry.get("dtype"))
    if len(shape) > _DIMENSIONS or len(offsets) != 2:
        raise _damaged(path, f"{name} of {len(shape)} dimensions lies at bytes {str(offsets)[:60]}")
    if dtype not in DTYPES | _OTHERS:
        raise Refusal(f"{path}: {name} is of the dtype {dtype[:60]!r}: those read are {', '.join(DTYPES)}.")
    dtype = (DTYPES | _OTHERS)[dtype]
    if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(dtype).itemsize:
        raise _damaged(path, f"{name} of the shape {list(shape)} and {dtype} lies at bytes {offsets}")
    return shape, dtype, *offsets


def _reader(path: Path, shape: tuple[int, ...], dtype: str, start: int) -> Any:
    """Return () → the array; read, not mapped, so that its memory is the array's and goes with it."""

    def read() -> np.ndarray:
        array = np.empty(shape, dtype)
        if array.size:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                view = memoryview(array.reshape(-1).view(np.uint8))
                done = 0
                while done < len(view):
                    count = file.readinto(view[done:])
                    if not count:
                        raise _damaged(path, "it became shorter while it was read")
                    done += count
        return array

    return read


def _damaged(path: Path, words: str) -> Refusal:
    return Refusal(f"{path} is no safetensors file, or a damaged one: {words}.")
