"""A config that names a PLACE to start from in; the config with the PLACE's model and tokenizer out, and its weights.

A run that has begun reads its own folder, so that it goes on when the PLACE has gone.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from lm import trees, workdir
from lm.config import head, schema
from lm.config.field import FREE
from lm.config.files import from_json
from lm.config.objective import USUAL
from lm.config.resolve import check_fields, flatten
from lm.model.transformer import Transformer, initial
from lm.refusal import Refusal
from lm.text import tokenizer as tokenizers
from lm.text.published import KIND
from lm.weights.place import describe, open_place

# What a run decides for itself: it changes training or rounding, not what the weights mean.
_OWN = r"^model\.(dropout|token_dropout|stochastic_depth|init|init_std|zero_init|vocabulary_multiple|(\w+_)?dtype)$"


def started(config: Mapping[str, Any], folder: Path | None = None) -> Mapping[str, Any]:
    """Return the config, of one with init.from_place with the PLACE's model section, and its tokenizer asked for.

    Args:
      config: not yet resolved; fields that are at their defaults count as unset.
      folder: the run's, or None.

    Raises:
      Refusal: there is no such PLACE, or a field that was set says other than it.
    """
    flat = flatten(config)
    check_fields(flat)
    if "init.from_place" not in flat or not flat["init.from_place"]:
        return config  # the resolver tells what is missing
    place = flat["init.from_place"]
    for name in ("data.tokenizer", "data.end_token"):
        if flat[name] not in (KIND, schema.FIELDS[name].default):
            raise Refusal(f"{name} is {flat[name]!r}, but init.from_place {place!r} has a tokenizer: leave it out.")
    if folder and (folder / workdir.CONFIG).is_file():
        theirs = flatten(from_json((folder / workdir.CONFIG).read_text(encoding="utf-8")))
    else:
        theirs = flatten(describe(place).config)
    labels = len(flat["objective.labels"]) if flat["objective.name"] == "classify" else 0
    is_new = labels > 0 and _is_new_head(labels, theirs["model.head"], theirs["model.labels"])
    for name in [name for name in flat if name.startswith("model.")]:
        if not (is_new and name in head.FIELDS):  # these follow from the objective
            flat[name] = _agreed(name, flat, theirs, place)
    if flat["objective.name"] == schema.FIELDS["objective.name"].default:
        flat["objective.name"] = USUAL[flat["model.architecture"]]
    started = schema.defaults()
    started.update_from_flattened_dict({**flat, "data.tokenizer": KIND})
    return started


def tokenizer(config: ml_collections.FrozenConfigDict, folder: Path | None = None) -> tokenizers.Tokenizer | None:
    """Return the tokenizer of a run that starts from a PLACE, None of one that does not."""
    if not config.init.from_place:
        return None
    if folder and (folder / workdir.TOKENIZER).is_dir():
        return tokenizers.load(folder / workdir.TOKENIZER)
    found = describe(config.init.from_place).tokenizer
    if found is None:
        raise Refusal(f"init.from_place is {config.init.from_place!r}: it has no tokenizer, which a run needs.")
    found.kind = KIND
    return found


def params(config: ml_collections.FrozenConfigDict, template: Any, say: Callable[[str], None]) -> Any:
    """Return the weights of init.from_place; of a run with another head, that head and its pooler drawn by the seed.

    Args:
      config: resolved and bound.
      template: shapes, dtypes and shardings of the run's parameters.
      say: hears of long work, and of what is drawn.
    """
    place, section = config.init.from_place, config.model
    wanted = dict(zip(trees.paths(template), jax.tree.leaves(template), strict=True))
    whole = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    fits = lambda path, leaf: like.sharding if (like := wanted.get(path)) and leaf.shape == like.shape else whole
    bundle = open_place(place, say, section.parameter_dtype, fits)
    found = dict(zip(trees.paths(bundle.params), jax.tree.leaves(bundle.params), strict=True))
    if section.labels and _is_new_head(section.labels, bundle.config.model.head, bundle.config.model.labels):
        found = {path: leaf for path, leaf in found.items() if not path.startswith("head/")}
        if drawn := [path for path in wanted if path not in found and path.startswith(("head/", "pooler/"))]:
            say(f"{place} has no head for {section.labels} classes: drawn by the seed are {', '.join(drawn)}.")
            found |= _drawn(config, {path: wanted[path].sharding for path in drawn})
    return trees.mapped(lambda path, like: _fitted(found[path], like, section.vocabulary), template)


def _is_new_head(labels: int, their_head: str, their_labels: int | None) -> bool:
    """Say whether a classifier of so many labels needs another head than the PLACE's."""
    return (their_head, their_labels) != ("classify", labels)


def _drawn(config: ml_collections.FrozenConfigDict, where: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Return path → leaf of those named, path → sharding, as a run from nothing would have them."""

    def some() -> dict[str, jax.Array]:
        params = initial(Transformer(config.model), jax.random.key(config.seed))
        leaves = dict(zip(trees.paths(params), jax.tree.leaves(params), strict=True))
        return {path: leaves[path] for path in where}  # the compiler leaves out all others

    return jax.jit(some, out_shardings=dict(where))()


def _agreed(name: str, flat: Mapping[str, Any], theirs: Mapping[str, Any], place: str) -> Any:
    """Return the value of a model field: the PLACE's, or the run's own where that is for a run to say."""
    mine, field = flat[name], schema.FIELDS[name]
    if re.search(_OWN, name) or field.mark == FREE or name not in theirs:
        return mine
    known = tuple(theirs[name]) if isinstance(theirs[name], list) else theirs[name]
    if name == "model.context" and mine < known and mine != field.default and theirs["model.positions"] != "learned":
        return mine
    if mine not in (field.default, known):
        raise Refusal(
            f"{name} is {mine!r}, but init.from_place {place!r} has {known!r}: leave it out, or set the same."
        )
    return known


def _fitted(leaf: jax.Array, like: Any, vocabulary: int) -> jax.Array:
    """Return a leaf padded for another model.vocabulary_multiple, where the run should have it."""
    if leaf.shape == like.shape:
        return leaf
    axis = next(axis for axis, size in enumerate(like.shape) if size != leaf.shape[axis])
    text = jax.lax.slice_in_dim(leaf, 0, min(vocabulary, leaf.shape[axis]), axis=axis)
    rest = [(0, like.shape[a] - text.shape[a]) for a in range(leaf.ndim)]
    return jax.device_put(jax.numpy.pad(text, rest), like.sharding)
