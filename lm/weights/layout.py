"""Tensors as another library names and shapes them in, our parameters out; and back. Families' rows say how."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from lm import trees
from lm.families.catalog import FAMILIES, switches
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights.place import shapes

_WRITTEN_BESIDE = ("norm_epsilon", "rotary_base", "tied")  # a published config says these for each model


class _Row(NamedTuple):
    """One row of a family's WEIGHTS, for one model. Theirs are matrices (inputs, outputs) or vectors; `how`:

    same: as they are. transpose: (outputs, inputs). third:I: the I-th third of their last axis, since queries,
    keys and values are one tensor. vocabulary: without the rows that pad ours. head: (outputs, inputs) without
    the padding; they have none when model.tied.
    """

    path: str
    names: list[str]  # one, or one a layer
    how: str
    leaf: Any  # our shape and dtype, layers stacked


def from_theirs(tensors: Mapping[str, Any], section: Any) -> dict[str, Any]:
    """Return our parameters, NumPy arrays in the section's parameter_dtype; the vocabulary's padding is zeros.

    Args:
      tensors: their name → array.
      section: config.model, resolved and bound.

    Raises:
      Refusal: a tensor is missing, one too many or of another shape; or the family's layout cannot hold the model.
    """
    rows = _rows(section)
    _check(tensors, {name: _their_shape(row, section.vocabulary) for row in rows for name in row.names})
    flat = {}
    for row in rows:
        layers = [_to_ours(np.asarray(tensors[name]), row) for name in row.names]
        flat[row.path] = np.stack(layers).reshape(row.leaf.shape).astype(row.leaf.dtype)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def to_theirs(params: Any, section: Any) -> dict[str, np.ndarray]:
    """Return their name → array: the inverse of `from_theirs`.

    Raises:
      Refusal: the family's layout cannot hold the model.
    """
    leaves = dict(zip(trees.paths(params), jax.tree.leaves(params), strict=True))
    parts: dict[str, list[np.ndarray]] = {}
    for row in _rows(section):
        matrices = np.asarray(leaves[row.path]).reshape(len(row.names), *_matrix(row))
        for name, matrix in zip(row.names, matrices, strict=True):
            parts.setdefault(name, []).append(_to_theirs(matrix, row, section.vocabulary))
    return {name: np.concatenate(thirds, axis=-1) if len(thirds) > 1 else thirds[0] for name, thirds in parts.items()}


def _rows(section: Any) -> list[_Row]:
    ours = shapes(Transformer(section))
    leaves = dict(zip(trees.paths(ours), jax.tree.leaves(ours), strict=True))
    rows = [row for row in FAMILIES[section.family].WEIGHTS if row[2] != "head" or not section.tied]
    if odd := sorted({path for path, _, _ in rows} ^ set(leaves)):
        raise Refusal(f"the published layout of {section.family} cannot hold this model: {', '.join(odd)} differ.")
    for name, value in {**switches(section.family), "windows": ()}.items():
        if name not in _WRITTEN_BESIDE and section[name] != value:
            raise Refusal(
                f"model.{name} is {section[name]!r}: the published layout of {section.family} holds only {value!r}."
            )
    if section.kv_heads != section.heads and any(how.startswith("third") for _, _, how in rows):
        raise Refusal(
            f"model.kv_heads is {section.kv_heads}: the published layout of {section.family} "
            f"holds only as many as heads ({section.heads})."
        )
    names = lambda path, name: [name.format(layer=layer) for layer in range(section.layers if "/block/" in path else 1)]
    return [_Row(path, names(path, name), how, leaves[path]) for path, name, how in rows]


def _check(tensors: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise Refusal(f"the weights lack {', '.join(missing)}.")
    if extra := sorted(tensors.keys() - wanted.keys()):
        raise Refusal(f"the weights have {', '.join(extra)}, which the model has no place for.")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise Refusal(f"{name} has the shape {tuple(tensors[name].shape)}: the model needs {shape}.")


def _matrix(row: _Row) -> tuple[int, ...]:
    """Return the shape of one layer's leaf with its input axes made one and its output axes made one."""
    shape = row.leaf.shape[1:] if "/block/" in row.path else row.leaf.shape
    if not row.path.endswith(("/kernel", "/embedding")):
        return (math.prod(shape),)
    inputs = len(shape) - 1 if row.path.endswith("/out/kernel") else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def _their_shape(row: _Row, vocabulary: int) -> tuple[int, ...]:
    matrix = _matrix(row)
    if row.how in ("vocabulary", "head"):
        return vocabulary, matrix[1 if row.how == "vocabulary" else 0]
    if row.how.startswith("third"):
        return *matrix[:-1], 3 * matrix[-1]
    return matrix[::-1] if row.how == "transpose" else matrix


def _to_ours(tensor: np.ndarray, row: _Row) -> np.ndarray:
    if row.how.startswith("third"):
        return np.split(tensor, 3, axis=-1)[int(row.how.removeprefix("third:"))]
    matrix = tensor.T if row.how in ("transpose", "head") else tensor
    return np.pad(matrix, [(0, size - have) for size, have in zip(_matrix(row), matrix.shape, strict=True)])


def _to_theirs(matrix: np.ndarray, row: _Row, vocabulary: int) -> np.ndarray:
    tensor = matrix.T if row.how in ("transpose", "head") else matrix
    return tensor[:vocabulary] if row.how in ("vocabulary", "head") else tensor
