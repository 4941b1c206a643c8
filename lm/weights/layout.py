"""Tensors as Hugging Face names and shapes them in, our parameters out, leaf by leaf; and back, tensor by tensor.

Families' rows say how (families/base.py). No more than one leaf and one tensor are held beside what is done.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from lm import trees
from lm.families.base import Weight
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights import config
from lm.weights.bundle import shapes
from lm.weights.published import Tensor

# Fields that are the size of an axis of some tensor: always, and where the positions are of a kind.
_SIZES = ("width", "heads", "kv_heads", "head_width", "feedforward_width", "layers", "encoder_layers", "experts")
_SIZES += ("vocabulary", "token_types", "labels")
_SIZES_OF_POSITIONS = {"learned": ("context",), "relative": ("relative_buckets",)}


class _Row(NamedTuple):
    """A row of a family's weights, for one model.

    names: of their tensors, as many as our leading axes have places. lead: how many leading axes those are.
    leaf: our shape and dtype. part: the first of their outputs that is ours, in every group. sizes: outputs, in a
    group, of all rows that share the tensor; () where it is not shared. groups: their number.
    """

    path: str
    names: list[str]
    lead: int
    how: list[str]
    leaf: Any
    part: int = 0
    sizes: tuple[int, ...] = ()
    groups: int = 1


def load(
    tensors: Mapping[str, Tensor], section: Any, sharding: Callable[[str, Any], jax.sharding.Sharding] | None = None
) -> dict[str, Any]:
    """Return our parameters as arrays in the section's parameter_dtype; the vocabulary's padding is zeros.

    Args:
      tensors: their name → Tensor.
      section: config.model, resolved and bound.
      sharding: (path, shape and dtype) → where a leaf goes, each process reading for its own devices; None: one device.

    Raises:
      Refusal: a tensor is missing, one too many or of another shape; or the family's layout cannot hold the model.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for pattern, word in config.layout(section.family).renamed:
        tensors = {re.sub(pattern, word, name): tensor for name, tensor in tensors.items()}
    _check_sizes(tensors, section)
    rows = _rows(section)
    names = _names(tensors, rows, section)
    flat = {}
    for row in sorted(rows, key=lambda row: -math.prod(row.leaf.shape)):  # large ones first, while there is most room
        parts = [tensors[names[name]] for name in row.names]
        flat[row.path] = _leaf(row, parts, section, sharding(row.path, row.leaf) if sharding else here)
    return flax.traverse_util.unflatten_dict({row.path: flat[row.path] for row in rows}, sep="/")


def theirs(params: Any, section: Any) -> dict[str, Tensor]:
    """Return their name → Tensor, each made when it is read: the inverse of `load`.

    Raises:
      Refusal: the family's layout cannot hold the model.
    """
    leaves = dict(zip(trees.paths(params), jax.tree.leaves(params), strict=True))
    shared: dict[str, list[tuple[_Row, int]]] = {}
    for row in _rows(section):
        for place, name in enumerate(row.names):
            shared.setdefault(name, []).append((row, place))

    def tensor(name: str) -> Tensor:
        rows = shared[name]
        read = lambda: _to_theirs([(row, _layer(leaves[row.path], row, place)) for row, place in rows], section)
        row, _ = rows[0]
        return Tensor(_their_shape(row, section.vocabulary), np.dtype(leaves[row.path].dtype).name, read)

    return {name: tensor(name) for name in shared}


def is_untied(tensors: Mapping[str, Tensor], section: Any) -> bool:
    """Say whether the head of a model that its config calls tied is one of its own all the same."""
    family = config.layout(section.family)
    if not section.tied or family.untied not in tensors:
        return False
    return not _are_equal(tensors[family.untied], tensors[dict(family.aliases)[family.untied]])


def _rows(section: Any) -> list[_Row]:
    """Return the rows of the model's leaves."""
    family = config.layout(section.family)
    ours = shapes(Transformer(section))
    leaves = dict(zip(trees.paths(ours), jax.tree.leaves(ours), strict=True))
    is_for = lambda row: row.path in leaves and all(section[field] == value for field, value in row.when.items())
    weights = [row for row in family.weights if is_for(row)]
    if odd := sorted(leaves.keys() - {row.path for row in weights}):
        raise Refusal(f"the published layout of {section.family} has no place for {', '.join(odd)}.")
    outputs: dict[str, list[int]] = {}  # of every shared tensor, row by row
    rows = []
    for weight in weights:
        row = _plain(weight, leaves[weight.path])
        if {"part", "grouped"} & set(row.how):
            groups = section.kv_heads if "grouped" in row.how else 1
            before = outputs.setdefault(weight.name, [])
            row = row._replace(part=sum(before), groups=groups)
            before.append(_matrix(row)[-1] // groups)
        rows.append(row)
    whole = {weight.path: tuple(outputs.get(weight.name, ())) for weight in weights}
    return [row._replace(sizes=whole[row.path]) for row in rows]


def _plain(weight: Weight, leaf: Any) -> _Row:
    counted = [word for word in ("layer", "expert") if f"{{{word}}}" in weight.name]
    places = np.ndindex(leaf.shape[: len(counted)])
    names = [weight.name.format(**dict(zip(counted, place, strict=True))) for place in places]
    return _Row(weight.path, names, len(counted), weight.how.split(), leaf)


def _check_sizes(tensors: Mapping[str, Tensor], section: Any) -> None:
    """Refuse sizes far beyond the tensors', before a model of them is made, if only in outline."""
    held = [tensor.shape for tensor in tensors.values() if 0 not in tensor.shape]
    largest = max([len(tensors), *(size for shape in held for size in shape)])
    for name in (*_SIZES, *_SIZES_OF_POSITIONS.get(section.positions, ())):
        if (section[name] or 0) > largest:
            raise Refusal(f"model.{name} is {section[name]}: no tensor of the weights is as long.")


def _names(tensors: Mapping[str, Tensor], rows: list[_Row], section: Any) -> dict[str, str]:
    """Return our name of each tensor wanted → the file's, which may lack the prefix; refuse what does not fit."""
    family = config.layout(section.family)
    has_prefix = any(name.startswith(family.prefix) for name in tensors)
    spelled = lambda name: name if has_prefix else name.removeprefix(family.prefix)
    wanted = {name: _their_shape(row, section.vocabulary) for row in rows for name in row.names}
    names = {name: spelled(name) for name in wanted}
    if missing := sorted(set(names.values()) - tensors.keys()):
        raise Refusal(f"the weights lack {_listed(missing)}.")
    aliases = {spelled(name): spelled(other) for name, other in family.aliases if name not in wanted}
    taken = {*names.values(), *aliases}
    extra = sorted(name for name in tensors.keys() - taken if not any(re.search(p, name) for p in family.ignored))
    if extra:
        raise Refusal(f"the weights have {_listed(extra)}, which the model has no place for.")
    for name, shape in wanted.items():
        if tensors[names[name]].shape != shape:
            raise Refusal(f"{names[name]} has the shape {tensors[names[name]].shape}: the model needs {shape}.")
    for name in sorted(aliases.keys() & tensors.keys()):
        if not _are_equal(tensors[name], tensors[aliases[name]]):
            raise Refusal(f"{name} is not equal to {aliases[name]}: by config.json they are one.")
    return names


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and np.array_equal(one.read(), other.read())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _matrix(row: _Row) -> tuple[int, ...]:
    """Return the shape of one of our places with its input axes made one and its output axes made one."""
    shape = row.leaf.shape[row.lead :]
    kept = int("each" in row.how)
    shape, first = shape[kept:], shape[:kept]
    if not row.path.endswith(("/kernel", "/embedding")):
        return *first, math.prod(shape)
    inputs = len(shape) - 1 if row.path.endswith("/out/kernel") else 1
    return *first, math.prod(shape[:inputs]), math.prod(shape[inputs:])


def _their_shape(row: _Row, vocabulary: int) -> tuple[int, ...]:
    shape = _matrix(row)
    if row.sizes:
        shape = *shape[:-1], sum(row.sizes) * row.groups
    if "transpose" in row.how:
        shape = *shape[:-2], shape[-1], shape[-2]
    if "vocabulary" in row.how:
        shape = vocabulary, *shape[1:]
    return shape[0] + _skipped(row), *shape[1:]


def _skipped(row: _Row) -> int:
    """Return how many of their first rows are not ours."""
    return next((int(word.removeprefix("from:")) for word in row.how if word.startswith("from:")), 0)


def _leaf(row: _Row, parts: list[Tensor], section: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Return a leaf laid out as `sharding` says; this process fills the pieces of its own devices, place by place."""
    shape, dtype = row.leaf.shape, row.leaf.dtype
    wanted = {str(index): index for index in sharding.addressable_devices_indices_map(shape).values()}
    bounds = {key: [range(*cut.indices(size)) for cut, size in zip(index, shape, strict=True)]
              for key, index in wanted.items()}  # fmt: skip
    pieces = {key: _aligned([len(bound) for bound in bounds[key]], dtype) for key in wanted}
    for place, part in zip(np.ndindex(shape[: row.lead]), parts, strict=True):
        here = [key for key in wanted if all(i in bound for i, bound in zip(place, bounds[key], strict=False))]
        value = _to_ours(part.read(), row, section).reshape(shape[row.lead :]) if here else None
        for key in here:
            at = tuple(i - bound.start for i, bound in zip(place, bounds[key], strict=False))
            pieces[key][at] = value[wanted[key][row.lead :]]
    leaf = jax.make_array_from_callback(shape, sharding, lambda index: pieces[str(index)])
    return jax.block_until_ready(leaf)  # so that the pieces are let go before the next leaf's are made


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """Return an array that XLA:CPU takes over without copying it, which it does from a multiple of 64 bytes on."""
    size = math.prod(shape) * dtype.itemsize
    data = np.empty(size + 64, np.uint8)
    start = -data.ctypes.data % 64
    return data[start : start + size].view(dtype).reshape(shape)


def _to_ours(tensor: np.ndarray, row: _Row, section: Any) -> np.ndarray:
    tensor = tensor[_skipped(row) :]
    if "vocabulary" in row.how:
        rows = row.leaf.shape[-1 if "transpose" in row.how else row.lead]
        tensor = np.pad(tensor, [(0, rows - len(tensor)), *[(0, 0)] * (tensor.ndim - 1)])
    if "transpose" in row.how:
        tensor = tensor.swapaxes(-1, -2)
    if row.sizes:
        grouped = tensor.reshape(*tensor.shape[:-1], row.groups, sum(row.sizes))
        size = _matrix(row)[-1] // row.groups
        tensor = grouped[..., row.part : row.part + size]
    return tensor


def _layer(leaf: Any, row: _Row, place: int) -> np.ndarray:
    """Return one place of a leaf as a matrix."""
    index = np.unravel_index(place, leaf.shape[: row.lead]) if row.lead else ()
    return np.asarray(leaf[tuple(int(i) for i in index)]).reshape(_matrix(row))


def _to_theirs(parts: list[tuple[_Row, np.ndarray]], section: Any) -> np.ndarray:
    """Return the tensor that these rows share."""
    row, tensor = parts[0]
    if row.sizes:
        cut = [matrix.reshape(*matrix.shape[:-1], row.groups, -1) for _, matrix in parts]
        tensor = np.concatenate(cut, axis=-1)
        tensor = tensor.reshape(*tensor.shape[:-2], -1)
    if "transpose" in row.how:
        tensor = tensor.swapaxes(-1, -2)
    if "vocabulary" in row.how:
        tensor = tensor[: section.vocabulary]
    if skipped := _skipped(row):
        tensor = np.pad(tensor, [(skipped, 0), *[(0, 0)] * (tensor.ndim - 1)])
    return np.ascontiguousarray(tensor)
