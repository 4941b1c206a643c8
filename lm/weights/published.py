"""What weights from elsewhere are, whatever file they come from: a config, tensors read one at a time, a tokenizer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lm.text.tokenizer import Tokenizer


class Tensor(NamedTuple):
    """A tensor that is read when it is asked for. dtype: NumPy's name of it, also "bfloat16"."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


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
