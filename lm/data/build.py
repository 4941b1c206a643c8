"""A source and a tokenizer in; shards of tokens and the offsets of their records on disk out, in one pass.

Every record is written as end-of-text followed by its tokens, and a split ends with one more end-of-text: the
same token opens a record as input and closes the one before as target, so every token of text is predicted.

Chunks of text are read here, encoded by threads that leave Python's lock alone for most of their time, and written
and digested here in order; a few of them are in memory at once.
"""

import hashlib
import itertools
import lzma
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm.data.sources import Record, Source
from lm.refusal import Refusal
from lm.text.normalize import normalized
from lm.text.tokenizer import Tokenizer

SPLITS = ("train", "valid")  # what is not held out, and what is

_MANY_RECORDS = 100  # from here on whole records are held out; below, the tail of each
_SHARD_TOKENS = 1 << 27
_CHUNK_CHARACTERS = 1 << 20  # text that is encoded at once; an encoded token takes some 80 bytes on the way
_CHUNKS = 3  # on the way at once
_XZ_BYTES = 1 << 23  # validation text up to here is also packed by xz -9, a yardstick for bits per byte
_SAY_SECONDS = 5.0


def texts(source: Source, section: Any) -> Iterator[tuple[str, bool]]:
    """Yield every text in its normal form, and whether it is held out.

    Held out are the source's own records for validation; or else whole documents, by the hash of their names; or
    the tail of each record, where there are few.
    """
    form = section.normalization
    records = source.records()
    if source.valid:
        yield from ((normalized(record.text, form), False) for record in records)
        yield from ((normalized(record.text, form), True) for record in source.valid())
        return
    first = itertools.islice(source.records(), 4 * _MANY_RECORDS)  # read twice, rather than held
    are_many = len({_document(record) for record in first}) >= _MANY_RECORDS
    for record in records:
        text = normalized(record.text, form)
        if are_many:
            yield text, _share(_document(record)) < section.valid_fraction
        else:
            cut = int(len(text) * (1 - section.valid_fraction))
            yield text[:cut], False
            yield text[cut:], True


def _document(record: Record) -> str:
    return record.document or record.id


def _share(name: str) -> float:
    """Return a number from 0 to 1 drawn from a name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def write(
    source: Source, section: Any, learned: Tokenizer, dtype: np.dtype, folder: Path, report: Callable[[int], None]
) -> dict[str, dict[str, Any]]:
    """Write both splits into the folder; return split name → its facts. `report` hears how many bytes are done."""
    splits = [_Split(folder, name, dtype) for name in SPLITS]
    held_out: list[bytes] = []
    chunks = _chunks(texts(source, section))
    try:
        for parts in _overlapped(lambda chunk: _encoded(chunk, learned, dtype), chunks):
            for split, part in zip(splits, parts, strict=True):
                split.append(part)
            held_out += [part.text for part in parts]
            if splits[-1].bytes > _XZ_BYTES:
                held_out.clear()
            report(sum(split.bytes for split in splits))
        facts = {split.name: split.close(learned.end) for split in splits}
    finally:
        for split in splits:
            split.leave()
    is_short = facts["valid"]["bytes"] <= _XZ_BYTES
    facts["train"]["xz_bytes"] = None
    facts["valid"]["xz_bytes"] = len(lzma.compress(b"".join(held_out), preset=9)) if is_short else None
    return facts


def _chunks(texts: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    chunk: list[tuple[str, bool]] = []
    size = 0
    for text, is_valid in texts:
        if text:
            chunk.append((text, is_valid))
            size += len(text)
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _overlapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield function(item) of each in order; threads are at work on a few while one is made and one is used."""
    with ThreadPoolExecutor(_CHUNKS - 1, "encode") as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == _CHUNKS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Part(NamedTuple):
    """What a chunk gives to a split: token ids, tokens of each record with its end-of-text, bytes; text if held out."""

    ids: np.ndarray
    counts: np.ndarray
    bytes: int
    text: bytes


def _encoded(chunk: list[tuple[str, bool]], learned: Tokenizer, dtype: np.dtype) -> list[_Part]:
    """Return a chunk's part of each split."""
    is_valid = np.array([flag for _, flag in chunk])
    ids, counts = learned.encode_flat([text for text, _ in chunk])
    if (ids == learned.end).any():
        raise Refusal(
            f"data.end_token is {learned.token(learned.end)!r}: data.tokenizer {learned.kind!r} cuts text into it; "
            "name another."
        )
    ids = np.insert(ids.astype(dtype), np.cumsum(counts) - counts, learned.end)
    counts = counts + 1
    sizes = np.array([len(text.encode()) for text, _ in chunk])
    text = b"".join(text.encode() for text, flag in chunk if flag)
    return [
        _Part(ids[np.repeat(mine, counts)], counts[mine], int(sizes[mine].sum()), text if name == "valid" else b"")
        for name, mine in zip(SPLITS, (~is_valid, is_valid), strict=True)
    ]


class _Split:
    """Appends tokens to a split's shards, and where each record begins to its offsets."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype):
        self.name, self.bytes = name, 0
        self._folder, self._dtype = folder, dtype
        self._records = self._tokens = 0
        self._shards: list[dict[str, Any]] = []
        self._shard: _File | None = None
        self._offsets = _File(folder / f"{name}-offsets.bin")

    def append(self, part: _Part) -> None:
        """Append records."""
        self._offsets.write(self._tokens + np.cumsum(part.counts) - part.counts)
        self._records += len(part.counts)
        self.bytes += part.bytes
        self._write(part.ids)

    def _write(self, ids: np.ndarray) -> None:
        while len(ids):
            if self._shard is None:
                self._shards.append({"name": f"{self.name}-{len(self._shards):05d}.bin", "tokens": 0})
                self._shard = _File(self._folder / self._shards[-1]["name"])
            shard = self._shards[-1]
            some, ids = np.split(ids, [_SHARD_TOKENS - shard["tokens"]])
            self._shard.write(some)
            shard["tokens"] += len(some)
            self._tokens += len(some)
            if shard["tokens"] == _SHARD_TOKENS:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shards[-1]["sha256"] = self._shard.close()
            self._shard = None

    def close(self, end: int) -> dict[str, Any]:
        """Write the last end-of-text; return the split's facts."""
        self._write(np.array([end], self._dtype))
        self._close_shard()
        offsets = {"name": f"{self.name}-offsets.bin", "sha256": self._offsets.close()}
        files = [*self._shards, offsets]
        return {"records": self._records, "tokens": self._tokens, "bytes": self.bytes, "files": files}

    def leave(self) -> None:
        """Let go of files that are still open, as they are."""
        for file in (self._offsets, self._shard):
            if file is not None:
                file.leave()


class _File:
    """A file that knows the SHA-256 of what was written into it."""

    def __init__(self, path: Path):
        self._file, self._digest = open(path, "wb"), hashlib.sha256()

    def write(self, values: np.ndarray) -> None:
        """Append the bytes of an array."""
        data = memoryview(np.ascontiguousarray(values)).cast("B")
        self._file.write(data)
        self._digest.update(data)

    def leave(self) -> None:
        """Close the file, if it is open."""
        self._file.close()

    def close(self) -> str:
        """Make the file survive a crash of the machine; return its digest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()


def progress(what: str, total: float, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return a function that says, at most every few seconds, how many of about `total` bytes are done."""
    begun = said = time.monotonic()
    say(f"{what}: about {total / 1e6:,.1f} MB")

    def report(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_SECONDS:
            said = now
            left = max(0.0, total / done - 1) * (now - begun)
            say(f"{what}: {done / 1e6:,.0f} of about {total / 1e6:,.0f} MB, {left:,.0f} s left")

    return report
