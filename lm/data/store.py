"""Sources in; a tokenizer and each source's tokens on disk out, each in a folder of its own that is built once.

A tokenizer's folder has the key of its kind, and of the sources if it learns from them; a source's folder has the
key of its records and of the tokenizer that cut them. So a mixture that takes another source in tokenises that alone.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm import lock, storage, transfer, workdir
from lm.config import data
from lm.data import build, catalog
from lm.data.sources import Source
from lm.refusal import Refusal
from lm.text import learn, tokenizer

VERSION = 3  # of the layout and of what is written; a store of another version is built again
INDEX = "index.json"


class Split(NamedTuple):
    """One split's tokens, random access: shards end to end, and where its texts begin.

    A record is a text, or of pairs two: text 2n is the input of pair n, text 2n + 1 its target.
    """

    shards: tuple[np.ndarray, ...]  # memory maps, uint16 or uint32
    starts: np.ndarray  # int64 (shards,): each shard's first token
    offsets: np.ndarray  # int64 (texts,): each text's first token, its end-of-text
    tokens: int
    bytes: int  # of UTF-8 text that is scored: all of it, or of pairs the targets
    input_bytes: int = 0  # of pairs' inputs

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return the int32 tokens at these places, across shards."""
        owners = np.searchsorted(self.starts, places, "right") - 1
        tokens = np.empty(len(places), np.int32)
        for owner in np.unique(owners):
            mine = owners == owner
            tokens[mine] = self.shards[owner][places[mine] - self.starts[owner]]
        return tokens


class Part(NamedTuple):
    """One source of the mixture: its name as the config spells it, its samples in a cycle, both splits."""

    name: str
    weight: int
    folder: Path
    facts: dict[str, dict[str, Any]]  # of each split: records, tokens, bytes, input_bytes, xz_bytes, files
    fingerprint: str
    train: Split
    valid: Split


class Store(NamedTuple):
    """What sources and a tokenizer become: the parts of a mixture, of one part where there is one source."""

    tokenizer: tokenizer.Tokenizer
    parts: tuple[Part, ...]
    files: Mapping[Path, str]  # SHA-256 of each

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens and offsets, with the tokenizer, and the names and weights of the parts."""
        parts = [[part.name, part.weight, part.fingerprint] for part in self.parts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def shares(self) -> list[float]:
        """Each part's share of the samples."""
        return [part.weight / sum(part.weight for part in self.parts) for part in self.parts]


def open_store(
    section: Any, say: Callable[[str], None] = lambda words: None, given: tokenizer.Tokenizer | None = None
) -> Store:
    """Return the store of a data section; what there is none of yet is built first.

    Args:
      section: config.data, resolved.
      say: receives progress, one line at a time.
      given: the tokenizer, instead of the section's.

    Raises:
      Refusal: a source that cannot be read or holds too little, or a damaged store.
    """
    root = storage.place(os.path.expanduser(section.store))
    weights = data.parts(section.source, section.mixture)
    sources = {name: catalog.source(name, section) for name in weights}
    for one, other in itertools.combinations(sources, 2):
        if both := sources[one].paths & sources[other].paths:
            raise Refusal(
                f"data.mixture: {one!r} and {other!r} both read {min(both)}, each holding out other records of it; "
                "let every file be of one source."
            )
    if given:
        folder = _given(root, given, say)
    else:
        folder = _tokenizer(root, section, {name: sources[name] for name in weights if weights[name]}, say)
    index = _index(folder)
    files = {folder / name: digest for name, digest in index["files"].items()}
    _verify(files)
    learned = tokenizer.load(folder)
    folders = {name: _tokens(root, section, name, one, learned, index["fingerprint"], say)
               for name, one in sources.items()}  # fmt: skip
    parts = tuple(_load(folders[name], name, weight) for name, weight in weights.items())
    for part in parts:
        written = [file for facts in part.facts.values() for file in facts["files"]]
        files |= {part.folder / file["name"]: file["sha256"] for file in written}
    return Store(learned, parts, files)


def _tokenizer(root: Path, section: Any, sources: Mapping[str, Source], say: Callable[[str], None]) -> Path:
    """Return the folder of the section's tokenizer, which learns from the training split of the sources."""
    key = [learn.key(section)]
    if learn.reads_text(section.tokenizer):
        key += [section.valid_fraction, [[name, one.key] for name, one in sources.items()]]

    def teach(folder: Path) -> dict[str, Any]:
        if learn.reads_text(section.tokenizer):
            say(f"tokenizer {section.tokenizer}: learning from {', '.join(sources)}")
        streams = [(text.text for text in build.texts(one, section) if not text.is_valid) for one in sources.values()]
        return _saved(learn.learn(section, _in_turn(streams)), folder)

    return _built(root, "tokenizer", key, teach, say)


def _given(root: Path, given: tokenizer.Tokenizer, say: Callable[[str], None]) -> Path:
    """Return the folder of a tokenizer that is there already."""
    key = [given.kind, given.end, hashlib.sha256(given.to_json().encode()).hexdigest(), given.published]
    return _built(root, "tokenizer", key, lambda folder: _saved(given, folder), say)


def _saved(made: tokenizer.Tokenizer, folder: Path) -> dict[str, Any]:
    """Write a tokenizer; return the index of its folder."""
    made.save(folder)
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {"fingerprint": hashlib.sha256(json.dumps(files).encode()).hexdigest(), "files": files}


def _in_turn(streams: list[Iterator[str]]) -> Iterator[str]:
    """Yield from all streams, each time from the one that has given least: what is read first is of all of them."""
    given = dict.fromkeys(streams, 0)
    while given:
        stream = min(given, key=given.__getitem__)
        if text := next(stream, ""):
            given[stream] += len(text)
            yield text
        else:
            del given[stream]


def _tokens(
    root: Path,
    section: Any,
    name: str,
    source: Source,
    learned: tokenizer.Tokenizer,
    taught: str,
    say: Callable[[str], None],
) -> Path:
    """Return the folder of a source's tokens; `taught` is the tokenizer's fingerprint."""
    key = [source.key, name, taught, section.valid_fraction, section.normalization]
    dtype = id_type(learned)

    def tokenise(folder: Path) -> dict[str, Any]:
        report = build.progress(f"tokenising {name}", source.size, say)
        splits = build.write(source, section, learned, dtype, folder, report)
        for split, facts in splits.items():
            if facts["bytes"] == 0:
                raise Refusal(f"data.source {name!r} is too small: nothing is left for the {split} split.")
        written = [file["sha256"] for facts in splits.values() for file in facts["files"]]
        words = ", ".join(
            f"{split} {facts['tokens']:,} tokens of {facts['records']:,} records" for split, facts in splits.items()
        )
        say(f"tokenised {name}: {words}")
        return {
            "source": name,
            "valid_fraction": section.valid_fraction,
            "normalization": section.normalization,
            "tokenizer": taught,
            "vocabulary": learned.size,
            "dtype": dtype.name,
            "fingerprint": hashlib.sha256(json.dumps([taught, written]).encode()).hexdigest(),
            "splits": splits,
        }

    return _built(root, "tokens", key, tokenise, say)


def id_type(learned: tokenizer.Tokenizer) -> np.dtype:
    """Return the dtype that a tokenizer's ids are written in."""
    return np.dtype(np.uint16 if learned.size <= 1 << 16 else np.uint32)


def _built(
    root: Path, kind: str, key: list[Any], make: Callable[[Path], dict[str, Any]], say: Callable[[str], None]
) -> Path:
    """Return the folder of a key; one process makes it beside its place, and moves it there whole.

    make: writes into a folder, returns its index.
    """
    name = f"{kind}-{hashlib.sha256(json.dumps([VERSION, key]).encode()).hexdigest()[:20]}"
    if storage.is_far(root):  # what is read lies on a disk
        make, root = partial(_shared, root / name, make, say), transfer.NEAR.expanduser() / "store"
    folder = root / name
    if (folder / INDEX).exists():
        return folder
    with lock.held(root / f"{folder.name}.lock", f"the token store {folder}", say, is_patient=True):
        if (folder / INDEX).exists():
            return folder
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            workdir.write_json(part / INDEX, {"version": VERSION} | make(part))
            shutil.rmtree(folder, ignore_errors=True)  # what is left of a store without its index
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _shared(
    far: Path, make: Callable[[Path], dict[str, Any]], say: Callable[[str], None], part: Path
) -> dict[str, Any]:
    """Return the index of a folder that machines share, its files in `part`: one makes them, others fetch them."""
    with lock.held(far.with_name(f"{far.name}.lock"), f"the token store {far}", say, is_patient=True):
        if not (far / INDEX).exists():
            index = make(part)
            transfer.send(part, far, say)
            workdir.write_json(far / INDEX, {"version": VERSION} | index)
            return index
    transfer.fetch(far, part, say)
    return _index(part)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _index(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except ValueError:
        raise Refusal(f"the token store is damaged: {folder / INDEX} cannot be read; delete the folder.") from None


def _load(folder: Path, name: str, weight: int) -> Part:
    index = _index(folder)
    dtype = np.dtype(index["dtype"])
    splits = {}
    for split, facts in index["splits"].items():
        *shards, offsets = facts["files"]
        for shard in shards:
            _check_size(folder / shard["name"], shard["tokens"] * dtype.itemsize)
        _check_size(folder / offsets["name"], offsets["texts"] * 8)
        counts = [shard["tokens"] for shard in shards]
        splits[split] = Split(
            shards=tuple(np.asarray(np.memmap(folder / shard["name"], dtype, "r")) for shard in shards),
            starts=np.cumsum([0, *counts[:-1]]),
            offsets=np.asarray(np.memmap(folder / offsets["name"], np.int64, "r")),
            tokens=facts["tokens"],
            bytes=facts["bytes"],
            input_bytes=facts["input_bytes"],
        )
    return Part(name, weight, folder, index["splits"], index["fingerprint"], **splits)


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else -1
    if found != size:
        state = "missing" if found < 0 else f"{found} bytes long instead of {size}"
        raise Refusal(f"the token store is damaged: {path} is {state}; delete the folder to build it again.")


def verify(store: Store) -> None:
    """Check the SHA-256 of every file of the store.

    Raises:
      Refusal: a file is not what was written.
    """
    _verify(store.files)


def _verify(files: Mapping[Path, str]) -> None:
    for path, digest in files.items():
        if not path.exists() or _digest(path) != digest:
            raise Refusal(f"the token store is damaged: {path} has changed since it was written.")
