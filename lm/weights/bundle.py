"""The Bundle: a model to work with, as generation, evaluation and export receive it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import ml_collections

from lm import trees
from lm.model import transformer
from lm.model.transformer import Transformer, initial
from lm.text.tokenizer import Tokenizer


class Bundle(NamedTuple):
    """A model to work with.

    config: resolved. model: its definition. params: arrays. tokenizer: its ids, or None. published: the texts of the
    files beside the tensors, by their names, where the model is from elsewhere and has no tokenizer to keep them.
    """

    config: ml_collections.FrozenConfigDict
    model: Transformer
    params: Any
    tokenizer: Tokenizer | None
    published: Mapping[str, str] = MappingProxyType({})


def shapes(model: Transformer) -> Any:
    """Return the parameters' shapes and dtypes."""
    return jax.eval_shape(lambda: initial(model, jax.random.key(0)))


def form(section: Any) -> str:
    """Return a digest of all that the parameters' shapes follow from: a resolved model section, the model's code."""
    texts = [path.read_bytes() for path in sorted(Path(transformer.__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join([repr(sorted(section.to_dict().items())).encode(), *texts])).hexdigest()


def counted(section: Any) -> dict[str, tuple[int, ...]]:
    """Return path → shape of a model section's parameters, without rows that pad the vocabulary: what costs count."""
    params = shapes(Transformer(ml_collections.FrozenConfigDict(section.to_dict() | {"vocabulary_multiple": 1})))
    return dict(zip(trees.paths(params), (leaf.shape for leaf in jax.tree.leaves(params)), strict=True))
