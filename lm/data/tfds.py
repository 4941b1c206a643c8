"""A data set of TensorFlow Datasets in, its records out, without TensorFlow; and the preparing of one, with a network.

Prepared sets are opened by their folder: what is here is read at once, and nothing else is asked.
"""

import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm.data.sources import Record, Source, fields, stamps, texts_of
from lm.refusal import Refusal, extra, nearest

_FORMAT = "array_record"  # the one with random access; TFDS's .parquet loses rows
_ROWS = 256  # read at a time
_RETRIES = 0  # of a download; TFDS's own ten take minutes to say that there is no network
_COMMAND = "python -m lm.data --config=... --prepare"
_NAME = re.compile(r"(\w+)(?:/([\w.+-]+))?(?::([\d.]+))?")
_VERSION = re.compile(r"\d+(\.\d+)*")


def prepared(name: str, section: Any) -> Source:
    """A prepared set, NAME[/CONFIG][:VERSION]: its split `train`, and `validation` where it has one; never `test`."""
    folder = _folder(name, section.folder)
    splits = _splits(folder)
    if "train" not in splits:
        raise Refusal(f"data.source 'tfds:{name}' has no split 'train' in {folder}: it has {', '.join(splits)}.")
    names = fields(section)
    read = lambda split: _records(folder, split, names)
    return Source(
        records=lambda: read("train"),
        key=f"tfds {json.dumps(names)} {stamps(folder.parent, sorted(folder.iterdir()))}",
        size=sum(int(splits[split].get("numBytes", 0)) for split in ("train", "validation") if split in splits),
        valid=(lambda: read("validation")) if "validation" in splits else None,
    )


def prepare(name: str, folder: str, say: Callable[[str], None]) -> None:
    """Download and prepare a set of the catalogue, NAME[/CONFIG][:VERSION], so that `prepared` can read it.

    Args:
      name: what follows `tfds:` in data.source.
      folder: data.folder.
      say: receives what is done.

    Raises:
      Refusal: there is no such set, it cannot be downloaded, or it needs what is not installed.
    """
    library = extra("tensorflow_datasets", "tfds", "data.source reads tfds:")
    downloader = importlib.import_module("tensorflow_datasets.core.download.downloader")
    registered = importlib.import_module("tensorflow_datasets.core.registered")
    downloader.MAX_RETRIES = _RETRIES
    root = Path(os.path.expanduser(folder))
    for place in _places(name, folder)[2]:
        _splits(place)  # in the right form, or refused
    if not sys.stderr.isatty():
        library.disable_progress_bar()
    say(f"preparing tfds:{name} in {root}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what it says is said here
            builder = library.builder(name, data_dir=str(root), file_format=_FORMAT)
            settings = library.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=settings)
    except registered.DatasetNotFoundError:
        raise Refusal(_unknown(library, name)) from None
    except Exception as error:  # of anybody's code: each set has its own
        words = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        if isinstance(error, ImportError) and "tensorflow" in str(error) and not _has_tensorflow():
            raise Refusal(_needs_tensorflow(name)) from None
        raise Refusal(f"data.source 'tfds:{name}' cannot be prepared ({type(error).__name__}: {words}).") from None
    _splits(_folder(name, folder))
    say(f"prepared tfds:{name}: {builder.data_dir}")


def _folder(name: str, root: str) -> Path:
    """Return the folder of a prepared set: of its default config and newest version, where none is named."""
    base, versions, meant = _places(name, root)
    if not meant:
        have = f", only {', '.join(path.name for path in versions)}" if versions else ""
        raise Refusal(f"data.source 'tfds:{name}' is not prepared in {base}{have}: run {_COMMAND} with a network.")
    return meant[-1]


def _places(name: str, root: str) -> tuple[Path, list[Path], list[Path]]:
    """Return the folder that holds a set's versions, those that are prepared, and those of them that are meant."""
    data_set, config, version = _NAME.fullmatch(name).groups()
    base = Path(os.path.expanduser(root)) / data_set
    with contextlib.suppress(OSError, ValueError, KeyError):  # a set without configs has no such file
        config = config or json.loads((base / ".config" / "metadata.json").read_text())["default_config_name"]
    base = base / (config or "")
    found = [path.parent for path in base.glob("*/dataset_info.json") if _VERSION.fullmatch(path.parent.name)]
    found.sort(key=lambda path: [int(part) for part in path.name.split(".")])
    return base, found, [path for path in found if version in (None, path.name)]


def _splits(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the set's own description says of its splits, by name."""
    try:
        facts = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        splits = {split["name"]: split for split in facts["splits"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(f"data.source: {folder}/dataset_info.json cannot be read ({error!r}).") from None
    if (found := facts.get("fileFormat", "tfrecord")) != _FORMAT:
        raise Refusal(
            f"data.source: {folder} was prepared as {found}, which has no random access: "
            f"move it away and run {_COMMAND}, which prepares {_FORMAT}."
        )
    return splits


def _records(folder: Path, split: str, fields: Mapping[str, str]) -> Iterator[Record]:
    library = extra("tensorflow_datasets", "tfds", "data.source reads tfds:")
    count = number = 0
    try:
        rows = library.builder_from_directory(str(folder)).as_data_source(split)
        features = rows.dataset_info.features
        for option, name in fields.items():
            if name not in features:
                have = ", ".join(features)
                raise Refusal(f"data.source: {folder} has no feature {name!r} ({option}) among {have}.")
        plain = {name: _plain(features[name]) for name in fields.values()}
        for number, row in enumerate(_rows(rows), 1):
            row |= {name: read(row[name]) for name, read in plain.items()}
            if texts := texts_of(row, f"{folder}, {split} record {number}", fields):
                count += 1
                yield Record(f"{split}:{number}", *texts)
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        words = " ".join(str(error).split()).rstrip(".")
        raise Refusal(f"data.source: {folder} cannot be read after {split} record {number} ({words}).") from None
    if not count:
        raise Refusal(f"data.source: {folder} is empty in its split {split!r}.")


def _rows(rows: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), _ROWS):
        yield from rows.__getitems__(list(range(start, min(start + _ROWS, len(rows)))))


def _plain(feature: Any) -> Callable[[Any], Any]:
    """Return a function that gives a feature's value as Python has it; a class that has a name by its name."""
    if getattr(feature, "names", None):
        return lambda value: feature.int2str(int(value))
    return lambda value: value.item() if isinstance(value, np.generic) else value


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _needs_tensorflow(name: str) -> str:
    return (
        f"data.source 'tfds:{name}' is prepared by code that needs TensorFlow: pip install tensorflow-cpu, "
        "and prepare again; reading it does not need it."
    )


def _unknown(library: Any, name: str) -> str:
    """Return the sentence for a name that the catalogue does not give: of another spelling, or of code not loaded."""
    data_set, _, _ = _NAME.fullmatch(name).groups()
    home, listed = Path(library.__file__).parent, library.list_builders(with_community_datasets=False)
    files = itertools.chain(home.rglob("*.py"), home.glob("url_checksums/*.txt"))
    if not _has_tensorflow() and data_set in {path.stem for path in files}:
        return _needs_tensorflow(name)
    return f"TensorFlow Datasets has no data set {data_set!r}{nearest(data_set, listed)}."
