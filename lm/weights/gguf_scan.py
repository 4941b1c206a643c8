"""A GGUF file of unknown origin in, its metadata and where its tensors lie out, or a Refusal; no tensor is read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Nothing here trusts the file: each count, length
and offset is held against what is left of the file before anything of that size is made, so that a file of any content
costs less than a second and 200 MB.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from lm.refusal import Refusal
from lm.weights.published import is_name

# Type number of a tensor → its name, how many elements a block has, how many bytes it takes.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_ALIGNMENT = "general.alignment"

# More than any model has, and no more than memory and a second hold.
_ENTRIES = 1 << 16  # of metadata; of tensors
_STRINGS = 1 << 20  # in all arrays together
_METADATA = 1 << 26  # bytes
_LETTERS = 1 << 27  # bytes that all texts together take in memory: one wide letter makes four bytes of each
_NAME = 256  # bytes
_LAYOUT = 4  # dimensions


class Entry(NamedTuple):
    """A tensor. shape: as NumPy says it. type: a name of TYPES. start, size: its bytes in the file."""

    shape: tuple[int, ...]
    type: str
    start: int
    size: int


class Scan(NamedTuple):
    """metadata: key → number, bool, text, list of texts or array of numbers. tensors: name → Entry."""

    metadata: dict[str, Any]
    tensors: dict[str, Entry]


def scan(path: Path) -> Scan:
    """Return what a GGUF file says of itself.

    Raises:
      Refusal: it is none, damaged, or says of itself what cannot be.
    """
    try:
        if not path.is_file() or path.stat().st_size < 24:
            raise Refusal(f"{path} is no GGUF file: a file of 24 bytes at least it would be.")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).scan()
    except OSError as error:
        raise Refusal(f"{path} cannot be read ({error.strerror}).") from None


class _Reader:
    """What is read next, and never anything beyond the end."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path = path
        self.data = data
        self.place = 0
        self.strings = 0
        self.letters = 0

    def scan(self) -> Scan:
        tensors, entries = self.header()
        metadata = {}
        for _ in range(entries):
            key = self.name("metadata key")
            if key in metadata:
                self.refuse(f"the metadata has {key!r} twice")
            metadata[key] = self.value(key, *self.numbers("<I"))
            if self.place > _METADATA:
                self.refuse(f"its metadata takes more than {_METADATA >> 20} MB")
        return Scan(metadata, self.tensors(tensors, metadata))

    def header(self) -> tuple[int, int]:
        """Return how many tensors there are, and how many entries of metadata."""
        magic = self.data[:4]
        if magic != b"GGUF":
            self.refuse(f"it begins with {magic!r}, not b'GGUF'")
        self.place = 4
        version, tensors, entries = self.numbers("<IQQ")
        if version not in (2, 3):
            swapped = " (it may be of a big-endian machine)" if version and version % 65536 == 0 else ""
            self.refuse(f"its version is {version}{swapped}; versions 2 and 3 can be read")
        # The least that one takes: of metadata a name of one letter, a type, a byte; of a tensor also its place.
        for what, count, least in (("tensors", tensors, 33), ("metadata entries", entries, 14)):
            if count > min(_ENTRIES, (len(self.data) - self.place) // least):
                self.refuse(f"it claims {count} {what}")
        return tensors, entries

    def value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self.text(key)
        if kind == _ARRAY:
            return self.array(key)
        return self.array_of(key, kind, 1)[0].item()

    def array(self, key: str) -> Any:
        kind, count = self.numbers("<IQ")
        if kind == _ARRAY:
            self.refuse(f"{key} is an array of arrays")
        if kind != _STRING:
            return self.array_of(key, kind, count)
        self.strings += count
        if count > (len(self.data) - self.place) // 8 or self.strings > _STRINGS:
            self.refuse(f"{key} claims {count} texts")
        return [self.text(key) for _ in range(count)]

    def array_of(self, key: str, kind: int, count: int) -> np.ndarray:
        """Return the numbers that come next."""
        if kind not in _NUMBERS:
            self.refuse(f"{key} is of the unknown type {kind}")
        form = np.dtype(_NUMBERS[kind])
        data = self.bytes(count * form.itemsize, f"the values of {key}")
        if kind == _BOOL and (np.frombuffer(data, np.uint8) > 1).any():
            self.refuse(f"{key} is neither true nor false")
        return np.frombuffer(data, form)

    def tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, Entry]:
        alignment = metadata.get(_ALIGNMENT, 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            self.refuse(f"{_ALIGNMENT} is {alignment!r}, which is no power of two")
        found = {}
        for _ in range(count):
            name = self.name("tensor's name")
            if name in found:
                self.refuse(f"two tensors are called {name!r}")
            found[name] = self.tensor(name, alignment)
        start = -(-self.place // alignment) * alignment
        placed = {name: entry._replace(start=start + entry.start) for name, entry in found.items()}
        stop, before = start, ""
        for name, entry in sorted(placed.items(), key=lambda item: item[1].start):
            if entry.start < stop:
                self.refuse(f"the tensors {before!r} and {name!r} overlap")
            stop, before = entry.start + entry.size, name
            if stop > len(self.data):
                self.refuse(f"the tensor {name!r} ends at byte {stop}, the file at {len(self.data)}")
        return placed

    def tensor(self, name: str, alignment: int) -> Entry:
        """Return a tensor as the table has it, its start counted from where the tensors begin."""
        (dimensions,) = self.numbers("<I")
        if not 1 <= dimensions <= _LAYOUT:
            self.refuse(f"the tensor {name!r} has {dimensions} dimensions; 1 to {_LAYOUT} can be")
        shape = self.numbers(f"<{dimensions}Q")[::-1]
        kind, start = self.numbers("<IQ")
        if kind not in TYPES:
            self.refuse(f"the tensor {name!r} is of the unknown type {kind}")
        type_name, elements, size = TYPES[kind]
        if shape[-1] % elements or 0 in shape:
            self.refuse(f"the tensor {name!r} of type {type_name} cannot have the shape {shape}")
        if start % alignment:
            self.refuse(f"the tensor {name!r} begins at {start}, which is no multiple of {alignment}")
        return Entry(shape, type_name, start, math.prod(shape) // elements * size)

    def name(self, what: str) -> str:
        """Return a key or a tensor's name."""
        start = self.place
        text = self.text(what)
        if self.place - start > _NAME + 8 or not is_name(text):
            self.refuse(f"{text[:60]!r} is no {what}")
        return text

    def text(self, what: str) -> str:
        (length,) = self.numbers("<Q")
        data = self.bytes(length, what)
        self.letters += len(data) if data.isascii() else 4 * len(data)
        if self.letters > _LETTERS:
            self.refuse(f"its texts take more than {_LETTERS >> 20} MB")
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.refuse(f"a text ({what}) is no UTF-8")

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.bytes(struct.calcsize(form), "a number"))

    def bytes(self, count: int, what: str) -> bytes:
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            self.refuse(f"{what} would end at byte {self.place}, the file ends at {len(self.data)}")
        if count > _METADATA:
            self.refuse(f"{what} takes {count} bytes")
        return self.data[start : self.place]

    def refuse(self, why: str) -> NoReturn:
        raise Refusal(f"{self.path} is damaged, or no GGUF file: {why}.")
