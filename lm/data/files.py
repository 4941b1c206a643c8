"""Files of a glob in; their records out, read as they come: no more of a file is in memory than a record needs."""

import glob
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm.data.sources import TARGET, Record, Source, fields, stamps, texts_of
from lm.refusal import Refusal, extra

_ROWS = 64  # of a .parquet in memory at a time, beside the pages that hold them


def files(pattern: str, section: Any) -> Source:
    """Files of a glob: a record a file, a line or a row, as READERS has it; its texts in the section's fields."""
    pattern = os.path.expanduser(pattern)
    found = [Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    if not found:
        raise Refusal(f"data.source 'files:{pattern}' matches no file.")
    root = Path(os.path.dirname(re.split(r"[*?[]", pattern)[0]))  # what the glob leaves open names the records
    paths = sorted(found, key=lambda path: path.relative_to(root).as_posix())
    names = fields(section)
    readers = {path: _reader(path, section.unit) for path in paths}

    def records() -> Iterator[Record]:
        for path, read in readers.items():
            name = path.relative_to(root).as_posix()
            count = 0
            for place, texts in read(path, names):
                count += 1
                yield Record(name + place, *texts)
            if not count:
                raise Refusal(f"data.source: {path} is empty.")

    size = sum(path.stat().st_size for path in paths)
    key = f"files {json.dumps(names)} {stamps(root, paths)}"
    return Source(records, key, size, paths=frozenset(path.resolve() for path in paths))


def _whole(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the one record of a file."""
    for _, text in _read(path, lines=False):
        if text.strip():
            yield "", [text]


def _lines(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a record for each line that is a JSON object with texts in `fields`."""
    for number, line in _read(path, lines=True):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line.rstrip("\n"))
        except (ValueError, RecursionError) as error:
            raise Refusal(f"data.source: {place} is not JSON ({error}).") from None
        if texts := texts_of(value, place, fields):
            yield f":{number}", texts


def _cells(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a record for each line below the first, which names the columns; a tab always parts two, nothing quotes."""
    names: list[str] = []
    for number, line in _read(path, lines=True):
        values = line.rstrip("\r\n").split("\t")
        if not names:
            names = values
        elif line.strip():
            place = f"{path}, line {number}"
            if len(values) != len(names):
                raise Refusal(f"data.source: {place} has {len(values)} columns, and the first line {len(names)}.")
            if texts := texts_of(dict(zip(names, values, strict=True)), place, fields):
                yield f":{number}", texts


def _rows(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a record for each row of a table, the columns `fields` of it."""
    arrow = extra("pyarrow", "parquet", "data.source reads .parquet")
    parquet = extra("pyarrow.parquet", "parquet", "data.source reads .parquet")
    number = 0
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as table:
            columns = dict(zip(table.schema_arrow.names, table.schema_arrow.types, strict=True))
            for option, name in fields.items():
                if name not in columns or not _is_text(arrow, columns[name], option):
                    have = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
                    raise Refusal(f"data.source: {path} has no column of text {name!r} ({option}) among {have}.")
            names = list(fields.values())
            batches = table.iter_batches(_ROWS, columns=names)
            rows = (zip(*map(batch.column, names), strict=True) for batch in batches)
            for number, values in enumerate(itertools.chain.from_iterable(rows), 1):
                row = {name: value.as_py() for name, value in zip(names, values, strict=True)}
                if texts := texts_of(row, f"{path}, row {number}", fields):
                    yield f":{number}", texts
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
    ".tsv": _cells,
    ".tsv.gz": _cells,
    ".parquet": _rows,
}


def _reader(path: Path, unit: str) -> Any:
    for suffix, read in READERS.items():
        if path.name.endswith(suffix):
            if unit == "pair" and read is _whole:
                raise Refusal(f"data.source: {path} is one text and holds no pairs, which objective.name asks for.")
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


def _is_text(arrow: Any, kind: Any, option: str) -> bool:
    """Say whether a column of this type holds text, or bytes that should be; or whole numbers that may be a target."""
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    if option == TARGET and arrow.types.is_integer(kind):
        return True
    return str(kind) in {f"{large}{name}" for large in ("", "large_") for name in ("string", "binary")}
