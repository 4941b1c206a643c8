"""A source and a tokenizer in; shards of tokens and the offsets of their texts on disk out, in one pass.

Every text is written as end-of-text followed by its tokens, and a split ends with one more end-of-text: the
same token opens a record as input and closes the one before as target, so every token of text is predicted.
Of a pair its input is written, and then its target.

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


class Text(NamedTuple):
    """A text in its normal form, whether it is held out, and whether it is a pair's input, whose target is next."""

    text: str
    is_valid: bool
    is_input: bool = False


def texts(source: Source, section: Any) -> Iterator[Text]:
    """Yield every text that is not empty; of a pair both, or none where one is empty.

    Held out are the source's own records for validation; or else whole documents, by the hash of their names; or
    the tail of each record, where there are few and they are no pairs.
    """
    form = section.normalization

    def whole(record: Record, is_valid: bool) -> Iterator[Text]:
        text, target = (part and normalized(part, form) for part in (record.text, record.target))
        if text and target:
            yield Text(text, is_valid, is_input=True)
            yield Text(target, is_valid)
        elif text and target is None:
            yield Text(text, is_valid)

    if source.valid:
        for is_valid, read in enumerate((source.records, source.valid)):
            for record in read():
                yield from whole(record, bool(is_valid))
        return
    first = itertools.islice(source.records(), 4 * _MANY_RECORDS)  # read twice, rather than held
    are_many = len({_document(record) for record in first}) >= _MANY_RECORDS
    for record in source.records():
        if are_many or record.target is not None:
            yield from whole(record, _share(_document(record)) < section.valid_fraction)
        else:
            text = normalized(record.text, form)
            cut = int(len(text) * (1 - section.valid_fraction))
            yield from (Text(*part) for part in ((text[:cut], False), (text[cut:], True)) if part[0])


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
            report(sum(split.bytes + split.input_bytes for split in splits))
        facts = {split.name: split.close(learned.end) for split in splits}
    finally:
        for split in splits:
            split.leave()
    is_short = facts["valid"]["bytes"] <= _XZ_BYTES
    facts["train"]["xz_bytes"] = None
    facts["valid"]["xz_bytes"] = len(lzma.compress(b"".join(held_out), preset=9)) if is_short else None
    return facts


def _chunks(texts: Iterable[Text]) -> Iterator[list[Text]]:
    chunk: list[Text] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text.text)
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
    """What a chunk gives to a split: token ids, tokens of each text with its end-of-text; how many of the texts are
    inputs; bytes of those, and of all others; these others, if held out.
    """

    ids: np.ndarray
    counts: np.ndarray
    inputs: int
    input_bytes: int
    bytes: int
    text: bytes


def _encoded(chunk: list[Text], learned: Tokenizer, dtype: np.dtype) -> list[_Part]:
    """Return a chunk's part of each split."""
    is_valid = np.array([text.is_valid for text in chunk])
    is_input = np.array([text.is_input for text in chunk])
    ids, counts = learned.encode_flat([text.text for text in chunk])
    if (ids == learned.end).any():
        raise Refusal(
            f"data.end_token is {learned.token(learned.end)!r}: data.tokenizer {learned.kind!r} cuts text into it; "
            "name another."
        )
    ids = np.insert(ids.astype(dtype), np.cumsum(counts) - counts, learned.end)
    counts = counts + 1
    sizes = np.array([len(text.text.encode()) for text in chunk])
    held_out = b"".join(text.text.encode() for text in chunk if text.is_valid and not text.is_input)

    def part(mine: np.ndarray, text: bytes) -> _Part:
        inputs, others = mine & is_input, mine & ~is_input
        of_inputs, of_others = int(sizes[inputs].sum()), int(sizes[others].sum())
        return _Part(ids[np.repeat(mine, counts)], counts[mine], int(inputs.sum()), of_inputs, of_others, text)

    return [part(~is_valid, b""), part(is_valid, held_out)]


class _Split:
    """Appends tokens to a split's shards, and where each text begins to its offsets."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype):
        self.name = name
        self.bytes = self.input_bytes = 0
        self._folder, self._dtype = folder, dtype
        self._texts = self._records = self._tokens = 0
        self._shards: list[dict[str, Any]] = []
        self._shard: _File | None = None
        self._offsets = _File(folder / f"{name}-offsets.bin")

    def append(self, part: _Part) -> None:
        """Append texts."""
        self._offsets.write(self._tokens + np.cumsum(part.counts) - part.counts)
        self._texts += len(part.counts)
        self._records += len(part.counts) - part.inputs
        self.bytes += part.bytes
        self.input_bytes += part.input_bytes
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
        offsets = {"name": f"{self.name}-offsets.bin", "texts": self._texts, "sha256": self._offsets.close()}
        return {
            "records": self._records,
            "tokens": self._tokens,
            "bytes": self.bytes,
            "input_bytes": self.input_bytes,
            "files": [*self._shards, offsets],
        }

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
