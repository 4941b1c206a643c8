"""A PLACE in, the Bundle that generation and evaluation work on out; and a Bundle into a PLACE.

A PLACE is a workdir or workdir@STEP (with :raw or not), a folder of Hugging Face's, a .safetensors file with its
config.json beside it, or a .gguf file; on a disk, or on an object store (gs://).
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from lm import checkpoint, storage, transfer, trees, workdir
from lm.config.files import from_json
from lm.config.resolve import resolve
from lm.families.base import SILENT
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text import tokenizer
from lm.weights import config as configs
from lm.weights import folder as folders
from lm.weights import gguf, layout
from lm.weights.bundle import Bundle, form, shapes
from lm.weights.published import Published, Tensor, told

GGUF = ".gguf"
DTYPES = ("float32", "bfloat16")
TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "q8_0": "Q8_0"}  # of .gguf files that are written

_Say = Callable[[str], None]
_Sharding = Callable[[str, Any], jax.sharding.Sharding]


class Description(NamedTuple):
    """What a PLACE holds, tensors aside: a resolved config (of a published model its model section alone means
    something) and a tokenizer, or None where it has none."""

    config: ml_collections.FrozenConfigDict
    tokenizer: tokenizer.Tokenizer | None


def _stderr(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def open_place(place: str, say: _Say = _stderr, dtype: str = "", sharding: _Sharding | None = None) -> Bundle:
    """Return the Bundle of a PLACE; of a workdir the newest checkpoint that is as written, or of the step named.

    Args:
      place: see above. Behind a workdir `:raw` asks for the weights that the optimizer moves where the run also kept
        averaged ones.
      say: receives what was found damaged.
      dtype: of the parameters; "": as they are stored (float16 becomes float32).
      sharding: (path, shape and dtype) → where a parameter goes; None: one device.

    Raises:
      Refusal: nothing to open there, or it is damaged, or a model that we have not.
    """
    if _is_workdir(place):
        return _open_workdir(place, say, dtype, sharding)
    published = _published(place, say)
    described = _described(published, dtype)
    section = described.config.model
    params = layout.load(told(published.tensors, f"reading {place}", say), section, sharding)
    return Bundle(described.config, Transformer(section), params, described.tokenizer, _files(published))


def describe(place: str) -> Description:
    """Return what a PLACE holds without reading its tensors."""
    if not _is_workdir(place):
        return _described(_published(place, lambda words: None), "")
    folder, _, _ = _parsed(place)
    return Description(_config(folder), tokenizer.load(folder / workdir.TOKENIZER))


def check_target(place: str, dtype: str = "") -> None:
    """Refuse what `save_place` would, whatever the Bundle, so that it is said before one is read.

    Raises:
      Refusal: something is there, or it is no PLACE to write, or one of another dtype.
    """
    path = storage.place(place)
    dtypes = tuple(TYPES) if path.suffix == GGUF else DTYPES
    if path.exists():
        raise Refusal(f"{place} is there already; name another.")
    if path.suffix in (".safetensors", *folders.PICKLES):
        raise Refusal(f"{place} is no PLACE to write: name a folder, or a file that ends in .gguf.")
    if dtype not in ("", *dtypes):
        raise Refusal(f"{place} is not written as {dtype}: it must be one of {', '.join(dtypes)}.")


def save_place(bundle: Bundle, place: str, say: _Say = _stderr, dtype: str = "") -> None:
    """Write a Bundle as a folder of Hugging Face's, or as a file where the PLACE ends in .gguf.

    Args:
      bundle: of any PLACE.
      place: where there is nothing yet.
      say: hears of long work.
      dtype: of DTYPES, or of TYPES where a .gguf file is written; "": that of the parameters.

    Raises:
      Refusal: something is there, or the published form cannot hold the model.
    """
    path = storage.place(place)
    is_gguf = path.suffix == GGUF
    dtype = dtype or bundle.config.model.parameter_dtype
    check_target(place, dtype)
    published = _to_published(bundle, "" if is_gguf else dtype)
    published = published._replace(tensors=told(published.tensors, f"writing {place}", say))
    with tempfile.TemporaryDirectory() if storage.is_far(path) else nullcontext(path.parent) as beside:
        near = Path(beside) / path.name
        if is_gguf:
            near.parent.mkdir(parents=True, exist_ok=True)
            gguf.write(near, published, TYPES[dtype])
        else:
            folders.write(near, published)
        if storage.is_far(path):
            transfer.send(Path(beside), path.parent, say, last=f"{path.name}/{folders.CONFIG}")


def _to_published(bundle: Bundle, dtype: str) -> Published:
    """Return a Bundle as it is published; of a published one with all of its config that says nothing to us."""
    section, known = bundle.config.model, bundle.tokenizer
    if known:
        _check_positions(section, known)
    before = known.published if known else bundle.published
    config = json.loads(before.get(folders.CONFIG, "{}"))
    kept = {name: value for name, value in config.items() if re.fullmatch(SILENT.names, name)}
    generation = json.loads(before.get(folders.GENERATION, "{}"))
    names = ("bos_token_id", "eos_token_id")
    if known and folders.CONFIG not in before:
        generation = dict(zip(names, (*(known.opening or (known.end,))[:1], known.end), strict=True))
    ends = {name: generation[name] for name in names if name in generation}
    starts = {}
    if section.architecture == "encoder_decoder":
        starts = dict.fromkeys(("decoder_start_token_id", "pad_token_id"), known.specials.start if known else 0)
    tensors = layout.theirs(bundle.params, section)
    written = configs.to_theirs(section)
    if dtype:
        written |= {"dtype": dtype}
        tensors = {name: _cast(tensor, dtype) for name, tensor in tensors.items()}
    return Published(
        config=ends | starts | kept | written,
        generation=generation,
        tensors=tensors,
        tokenizer=known,
    )


def _check_positions(section: Any, known: tokenizer.Tokenizer) -> None:
    """Refuse a model of which others would count positions past tokens of a text, where it has learned them all.

    RoBERTa's positions begin behind the id of padding, and Transformers gives that id's tokens none.
    """
    padding = section.position_offset - 1
    specials, unknown = known.specials, known.encode("\U00013000 \U0010fffd").tolist()
    free = set(specials.unwritten) - {specials.end, specials.first, specials.mask, *unknown}
    if padding >= 0 and known.spelled(padding) is not None and padding not in free:
        raise Refusal(
            f"the published layout of {section.family} counts no positions of the token {padding}, which is padding "
            f"there; in {known.kind!r} it is {known.spelled(padding)!r}, which texts have: take a data.tokenizer whose "
            f"token {padding} is special, such as RoBERTa's own, or a model.family such as bert."
        )


def _cast(tensor: Tensor, dtype: str) -> Tensor:
    return tensor._replace(dtype=dtype, read=lambda: tensor.read().astype(dtype, copy=False))


def _published(place: str, say: _Say) -> Published:
    path = storage.place(place)
    if path.suffix in folders.PICKLES and path.is_file():
        raise folders.pickled(path)
    path = _here(path)
    if path.suffix == GGUF and path.is_file():
        return gguf.read(path, say)
    if path.suffix == ".safetensors" and path.is_file():
        return folders.read(path.parent, path.name)
    if (path / folders.CONFIG).is_file():
        return folders.read(path)
    why = f"it has no {folders.CONFIG}" if path.is_dir() else "there is none" if not path.exists() else "it is a file"
    raise Refusal(
        f"{place!r} is not a PLACE ({why}): name the workdir of a run, a folder of Hugging Face's, or a .safetensors "
        "or .gguf file."
    )


def _here(path: Path) -> Path:
    """Return a PLACE that holds a published model as it lies on this machine's disk, copied there if it is far."""
    is_file = path.suffix in (GGUF, ".safetensors")
    if not storage.is_far(path) or not (path if is_file else path / folders.CONFIG).is_file():
        return path
    if path.suffix == GGUF:
        return transfer.fetched(path, lambda name: True, _stderr)
    is_wanted = lambda name: "/" not in name and Path(name).suffix not in (GGUF, *folders.PICKLES)
    near = transfer.fetched(path.parent if is_file else path, is_wanted, _stderr)
    return near / path.name if is_file else near


def _described(published: Published, dtype: str) -> Description:
    dtypes = {tensor.dtype for tensor in published.tensors.values()} & {"float16", "float32", "float64", "bfloat16"}
    dtype = dtype or ("bfloat16" if dtypes == {"bfloat16"} else "float32")
    config = configs.from_theirs(published.config, parameter_dtype=dtype)
    if layout.is_untied(published.tensors, config.model):
        config = configs.from_theirs(published.config | {"tie_word_embeddings": False}, parameter_dtype=dtype)
    if known := published.tokenizer:
        if known.size > config.model.vocabulary:
            raise Refusal(
                f"the tokenizer beside the weights has ids up to {known.size - 1}, and the model a vocabulary of "
                f"{config.model.vocabulary}: they do not belong together."
            )
        known.published |= _files(published)
    return Description(config, published.tokenizer)


def _files(published: Published) -> dict[str, str]:
    """Return the texts of the files that say how to use a model."""
    files = {folders.CONFIG: published.config, folders.GENERATION: published.generation}
    return {name: json.dumps(value, indent=2) for name, value in files.items() if value}


def _is_workdir(place: str) -> bool:
    """Say whether there is a run's folder, or nothing else that the PLACE can be."""
    folder, _, _ = _parsed(place)
    try:
        return "model.family" in folders.json_of(folder / workdir.CONFIG)  # every field of ours by its dotted name
    except Refusal:
        return False


def _parsed(place: str) -> tuple[Path, int | None, bool]:
    """Return a workdir's folder, the step named, and whether the raw weights are asked for."""
    plain = place.removesuffix(":raw")
    name, at, number = plain.rpartition("@")
    is_step = bool(at) and number.isdigit()
    return storage.place(name if is_step else plain), int(number) if is_step else None, plain != place


def _config(folder: Path) -> ml_collections.FrozenConfigDict:
    return resolve(from_json((folder / workdir.CONFIG).read_text(encoding="utf-8")))


def _open_workdir(place: str, say: _Say, dtype: str, sharding: _Sharding | None) -> Bundle:
    folder, step, is_raw = _parsed(place)
    config = _config(folder)
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
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    where = sharding or (lambda path, leaf: here)
    placed = lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where(path, leaf))
    saved = checkpoint.meta(checkpoints, step)
    item = "averaged" if not is_raw and "averaged" in saved["leaves"] else "params"
    is_known = saved.get("form") == form(config.model)  # else the model itself is asked, which takes a while
    template = checkpoint.template(checkpoints, step, item) if is_known else shapes(Transformer(config.model))
    params = checkpoint.restore(checkpoints / str(step), item, trees.mapped(placed, template))
    if dtype and dtype != config.model.parameter_dtype:
        config = _with(config, dtype)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return Bundle(config, Transformer(config.model), params, tokenizer.load(folder / workdir.TOKENIZER))


def _with(config: ml_collections.FrozenConfigDict, dtype: str) -> ml_collections.FrozenConfigDict:
    """Return the config with another dtype of its parameters."""
    other = ml_collections.ConfigDict(config)
    other.model.parameter_dtype = dtype
    return resolve(other)
