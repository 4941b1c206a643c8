"""What weights from elsewhere are, whatever file they come from: a config, tensors read one at a time, a tokenizer."""

import math
import reprlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401, makes "bfloat16" a dtype of NumPy's
import numpy as np

from lm.text.tokenizer import Tokenizer

_EVERY = 5.0  # seconds between two words about a long work
_SAID = 100  # characters of a value that a sentence repeats
_SPELL = reprlib.Repr()  # looks at a few levels and entries only, whatever there is
_SPELL.maxdict, _SPELL.maxlist, _SPELL.maxstring, _SPELL.maxother = 8, 8, 80, 80


class Tensor(NamedTuple):
    """A tensor that is read when it is asked for. dtype: NumPy's name of it, also "bfloat16"."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Published(NamedTuple):
    """A published model.

    config: as in config.json. generation: as in generation_config.json. tensors: Hugging Face's name → Tensor.
    tokenizer: its ids, or None where the file has none.
    """

    config: dict[str, Any]
    generation: dict[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer | None


def is_name(name: str) -> bool:
    """Say whether a file may call a tensor so: no name is a path, or holds anything that a terminal acts on."""
    return name.isprintable() and ".." not in name and "\\" not in name and name[:1] not in ("", "/")


def spelled(value: Any) -> str:
    """Return a value of a file as a sentence repeats it: a line of bounded length."""
    words = _SPELL.repr(value)
    return words if len(words) <= _SAID else f"{words[:_SAID]}..."


def told(tensors: Mapping[str, Tensor], what: str, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Return the same tensors, of whose reading `say` hears every few seconds how far it is."""
    whole = sum(tensor.nbytes for tensor in tensors.values())
    seen: set[str] = set()
    last = [time.monotonic()]

    def read(name: str) -> np.ndarray:
        array = tensors[name].read()
        seen.add(name)
        if time.monotonic() - last[0] > _EVERY:
            last[0] = time.monotonic()
            done = sum(tensors[name].nbytes for name in seen)
            say(f"{what}: {done / whole:.0%} of {whole / 1e9:.2f} GB")
        return array

    return {name: tensor._replace(read=lambda name=name: read(name)) for name, tensor in tensors.items()}
