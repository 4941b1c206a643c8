"""Files of a glob in; their records out, read as they come: no more of a file is in memory than a record needs."""

import glob
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.data.sources import Record, Source, stamps, text_of
from lm.refusal import Refusal, extra

_ROWS = 64  # of a .parquet in memory at a time, beside the pages that hold them


def files(pattern: str, section: Any) -> Source:
    """Files of a glob: a record a file, a line or a row, as READERS has it; text in section.text_field."""
    pattern = os.path.expanduser(pattern)
    found = [Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    if not found:
        raise Refusal(f"data.source 'files:{pattern}' matches no file.")
    root = Path(os.path.dirname(re.split(r"[*?[]", pattern)[0]))  # what the glob leaves open names the records
    paths = sorted(found, key=lambda path: path.relative_to(root).as_posix())
    readers = {path: _reader(path) for path in paths}

    def records() -> Iterator[Record]:
        for path, read in readers.items():
            name = path.relative_to(root).as_posix()
            count = 0
            for place, text in read(path, section.text_field):
                count += 1
                yield Record(name + place, text)
            if not count:
                raise Refusal(f"data.source: {path} is empty.")

    size = sum(path.stat().st_size for path in paths)
    key = f"files {section.text_field} {stamps(root, paths)}"
    return Source(records, key, size, paths=frozenset(path.resolve() for path in paths))


def _whole(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield the one record of a file."""
    for _, text in _read(path, lines=False):
        if text.strip():
            yield "", text


def _lines(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield a record for each line that is a JSON object with text in `field`."""
    for number, line in _read(path, lines=True):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line.rstrip("\n"))
        except (ValueError, RecursionError) as error:
            raise Refusal(f"data.source: {place} is not JSON ({error}).") from None
        if text := text_of(value.get(field) if isinstance(value, dict) else None, place, field):
            yield f":{number}", text


def _rows(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Yield a record for each row of a table, the column `field` of it."""
    arrow = extra("pyarrow", "parquet", "data.source reads .parquet")
    parquet = extra("pyarrow.parquet", "parquet", "data.source reads .parquet")
    number = 0
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table:
            columns = dict(zip(table.schema_arrow.names, table.schema_arrow.types, strict=True))
            if field not in columns or not _is_text(arrow, columns[field]):
                have = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
                raise Refusal(f"data.source: {path} has no column of text {field!r} (data.text_field) among {have}.")
            batches = (batch.column(0) for batch in table.iter_batches(_ROWS, columns=[field]))
            for number, value in enumerate(itertools.chain.from_iterable(batches), 1):
                if text := text_of(value.as_py(), f"{path}, row {number}", field):
                    yield f":{number}", text
    except UnicodeDecodeError as error:
        raise Refusal(f"data.source: {path}, row {number}: byte {error.start} is not UTF-8 ({error.reason}).") from None
    except (arrow.ArrowException, OSError) as error:
        words = " ".join(str(error).split()).rstrip(".")
        raise Refusal(f"data.source: {path} cannot be read after row {number} ({words}).") from None


READERS = {
    ".txt": _whole,
    ".txt.gz": _whole,
    ".jsonl": _lines,
    ".jsonl.gz": _lines,
    ".parquet": _rows,
}


def _reader(path: Path) -> Any:
    for suffix, read in READERS.items():
        if path.name.endswith(suffix):
            return read
    raise Refusal(f"data.source: {path} is none of {', '.join(READERS)}.")


def _read(path: Path, lines: bool) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line, or of a file as a whole; a .gz is unpacked on the way."""
    number = begin = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, data in enumerate(file if lines else [file.read()], 1):
                yield number, data.decode()
                begin += len(data)
    except UnicodeDecodeError as error:
        line = number + error.object.count(b"\n", 0, error.start)
        words = f"line {line}: byte {begin + error.start} is not UTF-8 ({error.reason})"
        raise Refusal(f"data.source: {path}, {words}.") from None
    except (EOFError, OSError, zlib.error) as error:
        raise Refusal(f"data.source: {path} cannot be read ({error}).") from None


def _is_text(arrow: Any, kind: Any) -> bool:
    """Say whether a column of this type holds text, or bytes that should be."""
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    return str(kind) in {f"{large}{name}" for large in ("", "large_") for name in ("string", "binary")}
