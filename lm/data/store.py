"""Text in once; flat token arrays on disk out: per split, shards of tokens and the offsets of their records.

Every record is written as end-of-text followed by its tokens, and a split ends with one more end-of-text: the
same token opens a record as input and closes the one before as target, so every token of text is predicted.
"""

import hashlib
import itertools
import json
import lzma
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm import workdir
from lm.data import catalog
from lm.data.sources import Record, Source
from lm.refusal import Refusal
from lm.text import learn, tokenizer

VERSION = 1  # of the layout and of what is written; a store of another version is built again
INDEX = "index.json"
SPLITS = ("train", "valid")

_MANY_RECORDS = 100  # from here on whole records are held out; below, the tail of each
_SHARD_TOKENS = 1 << 27
_CHUNK_CHARACTERS = 1 << 23  # text in memory while tokenising
_XZ_BYTES = 1 << 25  # validation text up to here is also packed by xz -9, a yardstick for bits per byte


class Split(NamedTuple):
    """One split's tokens, random access: shards end to end, and where its records begin."""

    shards: tuple[np.ndarray, ...]  # memory maps, uint16 or uint32
    starts: np.ndarray  # int64 (shards,): each shard's first token
    offsets: np.ndarray  # int64 (records,): each record's first token, its end-of-text
    tokens: int
    bytes: int  # of UTF-8 text

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return int32 tokens from `start` to `stop` (exclusive), across shards."""
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        parts = []
        while start < stop:
            begin = start - int(self.starts[first])
            part = self.shards[first][begin : begin + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        return np.concatenate(parts).astype(np.int32) if len(parts) != 1 else parts[0].astype(np.int32)


class Store(NamedTuple):
    """What a source and a tokenizer become: both splits, the tokenizer, and the facts about them."""

    folder: Path
    index: dict[str, Any]
    tokenizer: tokenizer.Tokenizer
    train: Split
    valid: Split

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens and offsets of both splits, with the tokenizer."""
        return self.index["fingerprint"]


def open_store(section: Any, say: Callable[[str], None] = lambda words: None) -> Store:
    """Return the store of a data section, built first where there is none yet.

    Args:
      section: config.data, resolved.
      say: receives progress, one line at a time.

    Raises:
      Refusal: a source that cannot be read or holds too little, or a damaged store.
    """
    source = catalog.source(section.source, section)
    parts = (VERSION, source.key, section.source, learn.key(section), repr(section.valid_fraction))
    name = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:20]
    root = Path(os.path.expanduser(section.store))
    folder = root / name
    if not (folder / INDEX).exists():
        with workdir.lock(root / f"{name}.lock", f"the token store {folder}", wait=_once(say)):
            if not (folder / INDEX).exists():
                _build(source, section, folder, say)
    return _load(folder)


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    said = set()

    def speak(words: str) -> None:
        if words not in said:
            said.add(words)
            say(f"waiting: {words}")

    return speak


def _build(source: Source, section: Any, folder: Path, say: Callable[[str], None]) -> None:
    """Write the store beside its place, then move it there whole."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    split = _splitter(source, section)
    say(f"tokenizer {section.tokenizer}: learning from {section.source}")
    learned = learn.learn(section, (record.text for record in split("train") if record.text))
    learned.save(part / workdir.TOKENIZER)
    dtype = np.dtype(np.uint16 if learned.size <= 1 << 16 else np.uint32)
    shares = {"train": 1 - section.valid_fraction, "valid": section.valid_fraction}
    splits = {
        name: _write_split(split(name), learned, dtype, part, name, _progress(name, shares[name] * source.size, say))
        for name in SPLITS
    }
    for name, facts in splits.items():
        if facts["bytes"] == 0:
            raise Refusal(f"data.source {section.source!r} is too small: nothing is left for the {name} split.")
    digest = hashlib.sha256(
        json.dumps([learned.kind, [f["sha256"] for s in splits.values() for f in s["files"]]]).encode()
    )
    digest.update((part / workdir.TOKENIZER / tokenizer.FILE).read_bytes())
    index = {
        "version": VERSION,
        "source": section.source,
        "tokenizer": section.tokenizer,
        "valid_fraction": section.valid_fraction,
        "vocabulary": learned.size,
        "dtype": dtype.name,
        "tokenizer_sha256": _digest(part / workdir.TOKENIZER / tokenizer.FILE),
        "fingerprint": digest.hexdigest(),
        "splits": splits,
    }
    workdir.write_json(part / INDEX, index)
    shutil.rmtree(folder, ignore_errors=True)  # what is left of a store without its index
    os.replace(part, folder)
    words = ", ".join(
        f"{name} {facts['tokens']:,} tokens of {facts['records']:,} records" for name, facts in splits.items()
    )
    say(f"token store {folder}: {words}")


def _splitter(source: Source, section: Any) -> Callable[[str], Iterator[Record]]:
    """Return a function: split name → its records, by hash of their ids, or the tail of each when they are few."""
    documents = {record.document or record.id for record in itertools.islice(source.records(), 4 * _MANY_RECORDS)}
    by_hash = len(documents) >= _MANY_RECORDS

    def split(name: str) -> Iterator[Record]:
        for record in source.records():
            if by_hash:
                if (_share(record.document or record.id) < section.valid_fraction) == (name == "valid"):
                    yield record
            else:
                cut = int(len(record.text) * (1 - section.valid_fraction))
                yield Record(record.id, record.text[:cut] if name == "train" else record.text[cut:])

    return split


def _share(name: str) -> float:
    """Return a number from 0 to 1 drawn from a name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _write_split(
    records: Iterable[Record],
    learned: tokenizer.Tokenizer,
    dtype: np.dtype,
    folder: Path,
    name: str,
    report: Callable[[int], None],
) -> dict[str, Any]:
    """Write one split's shards and offsets; return its facts."""
    packer = lzma.LZMACompressor(preset=9) if name == "valid" else None
    packed = tokens = text_bytes = 0
    offsets: list[int] = []
    files: list[dict[str, Any]] = []
    shard = None
    end = np.asarray([learned.end], dtype)

    def append(ids: np.ndarray) -> None:
        nonlocal shard, tokens
        if shard is None or files[-1]["tokens"] >= _SHARD_TOKENS:
            if shard:
                _close(shard, files[-1], folder)
            files.append({"name": f"{name}-{len(files):05d}.bin", "tokens": 0})
            shard = open(folder / files[-1]["name"], "wb")
        shard.write(ids.astype(dtype).tobytes())
        files[-1]["tokens"] += len(ids)
        tokens += len(ids)

    for chunk in _chunks(records):
        for record, ids in zip(chunk, learned.encode_all([record.text for record in chunk]), strict=True):
            offsets.append(tokens)
            append(np.concatenate([end, ids]))
            data = record.text.encode()
            text_bytes += len(data)
            if packer and text_bytes > _XZ_BYTES:
                packer = None
            if packer:
                packed += len(packer.compress(data))
        report(text_bytes)
    append(end)
    _close(shard, files[-1], folder)
    path = folder / f"{name}-offsets.bin"
    path.write_bytes(np.asarray(offsets, np.int64).tobytes())
    files.append({"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    xz_bytes = packed + len(packer.flush()) if packer else None
    return {"records": len(offsets), "tokens": tokens, "bytes": text_bytes, "xz_bytes": xz_bytes, "files": files}


def _progress(name: str, total: float, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return a function that says, at most every five seconds, how far a split of about `total` bytes is."""
    begun = said = time.monotonic()
    say(f"tokenising {name}: about {total / 1e6:,.1f} MB")

    def report(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 5:
            said = now
            left = max(0.0, total / done - 1) * (now - begun)
            say(f"tokenising {name}: {done / 1e6:,.0f} of about {total / 1e6:,.0f} MB, {left:,.0f} s left")

    return report


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    size = 0
    for record in records:
        if record.text:
            chunk.append(record)
            size += len(record.text)
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _close(shard: Any, facts: dict[str, Any], folder: Path) -> None:
    shard.flush()
    os.fsync(shard.fileno())
    shard.close()
    facts["sha256"] = _digest(folder / facts["name"])


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path) -> Store:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except ValueError:
        raise Refusal(f"the token store is damaged: {folder / INDEX} cannot be read; delete the folder.") from None
    dtype = np.dtype(index["dtype"])
    splits = {}
    for name, facts in index["splits"].items():
        *shards, offsets = facts["files"]
        for shard in shards:
            _check_size(folder / shard["name"], shard["tokens"] * dtype.itemsize)
        _check_size(folder / offsets["name"], facts["records"] * 8)
        counts = [shard["tokens"] for shard in shards]
        splits[name] = Split(
            shards=tuple(np.memmap(folder / shard["name"], dtype, "r") for shard in shards),
            starts=np.cumsum([0, *counts[:-1]]),
            offsets=np.fromfile(folder / offsets["name"], np.int64),
            tokens=facts["tokens"],
            bytes=facts["bytes"],
        )
    return Store(folder, index, tokenizer.load(folder / workdir.TOKENIZER), **splits)


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
    digests = {file["name"]: file["sha256"] for facts in store.index["splits"].values() for file in facts["files"]}
    digests[f"{workdir.TOKENIZER}/{tokenizer.FILE}"] = store.index["tokenizer_sha256"]
    for name, digest in digests.items():
        if _digest(store.folder / name) != digest:
            raise Refusal(f"the token store is damaged: {store.folder / name} has changed since it was written.")
