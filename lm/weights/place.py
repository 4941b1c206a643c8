"""A PLACE (a workdir or workdir@STEP, with :raw or not) in; the Bundle that generation and evaluation work on out."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from lm import checkpoint, workdir
from lm.config.files import from_json
from lm.config.resolve import resolve
from lm.model.transformer import Transformer, initial
from lm.refusal import Refusal
from lm.text import tokenizer


class Bundle(NamedTuple):
    """A model to work with. config: resolved. model: its definition. params: arrays. tokenizer: its ids."""

    config: ml_collections.FrozenConfigDict
    model: Transformer
    params: Any
    tokenizer: tokenizer.Tokenizer


def shapes(model: Transformer) -> Any:
    """Return the parameters' shapes and dtypes."""
    return jax.eval_shape(lambda: initial(model, jax.random.key(0)))


def open_place(place: str, say: Callable[[str], None] = lambda words: print(words, file=sys.stderr)) -> Bundle:
    """Return the Bundle of a workdir's newest checkpoint that is as written, or of the step named.

    Args:
      place: `DIR` or `DIR@STEP`; behind either, `:raw` asks for the weights that the optimizer moves where the run
        also kept averaged ones.
      say: receives what was found damaged.

    Raises:
      Refusal: nothing to open there, or the step named is damaged.
    """
    plain = place.removesuffix(":raw")
    name, at, number = plain.rpartition("@")
    folder, step = (Path(name), int(number)) if at and number.isdigit() else (Path(plain), None)
    if not (folder / workdir.CONFIG).is_file():
        raise Refusal(f"{str(folder)!r} is not a workdir: it has no {workdir.CONFIG}; name the --workdir of a run.")
    config = resolve(from_json((folder / workdir.CONFIG).read_text(encoding="utf-8")))
    checkpoints = folder / workdir.CHECKPOINTS
    if step is None:
        step = checkpoint.newest(checkpoints, say, is_reader=True)
        if step is None:
            raise Refusal(f"{folder} has no checkpoint yet; let the run go on until it saves one.")
    elif step not in checkpoint.steps(checkpoints):
        have = ", ".join(map(str, checkpoint.steps(checkpoints))) or "none"
        raise Refusal(f"{folder} has no checkpoint of step {step}: it has {have}.")
    elif reason := checkpoint.damage(checkpoints / str(step)):
        raise Refusal(f"checkpoint {step} is damaged: {reason}.")
    model = Transformer(config.model)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes(model))
    is_averaged = plain == place and "averaged" in checkpoint.meta(checkpoints, step)["leaves"]
    params = checkpoint.restore(checkpoints / str(step), "averaged" if is_averaged else "params", template)
    return Bundle(config, model, params, tokenizer.load(folder / workdir.TOKENIZER))
