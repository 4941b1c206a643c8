"""Where text comes from: a source name in, records (id, text) out, in an order that no file system decides."""

import ast
import functools
import glob
import gzip
import io
import json
import os
import re
import sysconfig
import tokenize
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lm.refusal import Refusal


class Record(NamedTuple):
    """One text with its id. Records of one document, where it is given, are held out together."""

    id: str
    text: str
    document: str = ""


class Source(NamedTuple):
    """A stream of records, and a cheap key that changes whenever they may have changed.

    valid: the source's own records for validation, where it has some; then all of `records` are for training.
    """

    records: Callable[[], Iterator[Record]]
    key: str
    size: int  # bytes on disk, for progress
    valid: Callable[[], Iterator[Record]] | None = None


def embedded(part: str, field: str) -> Source:
    """Python's own standard library, read in place: `prose` (docstrings, comments, help topics), `code`, or both."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths = [p for p in sorted(root.rglob("*.py")) if not skipped & set(p.relative_to(root).parts)]

    @functools.cache  # a build reads the records four times, and Python's tokenizer takes its time
    def read() -> tuple[Record, ...]:
        return tuple(records())

    def records() -> Iterator[Record]:
        for path in paths:
            name = path.relative_to(root).as_posix()
            try:
                with tokenize.open(path) as file:
                    text = file.read()
            except (SyntaxError, UnicodeDecodeError):  # samples of bad encodings, kept for Python's own use
                continue
            if part in ("", "code") and text.strip() and name != "pydoc_data/topics.py":
                yield Record(f"{name}#code", text, name)
            if part in ("", "prose"):
                yield from _topics(name, text) if name == "pydoc_data/topics.py" else _prose(name, text)

    return Source(lambda: iter(read()), f"embedded {_stamps(root, paths)}", sum(path.stat().st_size for path in paths))


def files(pattern: str, field: str) -> Source:
    """Files of a glob: each .txt is a record, each line of a .jsonl is one (its text in `field`); .gz of both."""
    pattern = os.path.expanduser(pattern)
    found = [Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    if not found:
        raise Refusal(f"data.source 'files:{pattern}' matches no file.")
    root = Path(os.path.dirname(re.split(r"[*?[]", pattern)[0]))  # what the glob leaves open names the records
    paths = sorted(found, key=lambda path: path.relative_to(root).as_posix())
    for path in paths:
        if path.name.removesuffix(".gz").rpartition(".")[2] not in ("txt", "jsonl"):
            raise Refusal(f"data.source: {path} is neither .txt nor .jsonl (nor .gz of them).")

    def records() -> Iterator[Record]:
        for path in paths:
            name = path.relative_to(root).as_posix()
            text = _read(path)
            if path.name.removesuffix(".gz").endswith(".txt"):
                if not text.strip():
                    raise Refusal(f"data.source: {path} is empty.")
                yield Record(name, text)
            else:
                yield from _lines(path, name, text, field)

    return Source(records, f"files {field} {_stamps(root, paths)}", sum(path.stat().st_size for path in paths))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Refusal(f"data.source: {path}, line {line}: byte {error.start} is not UTF-8 ({error.reason}).") from None
    except (EOFError, OSError, zlib.error) as error:
        raise Refusal(f"data.source: {path} cannot be read ({error}).") from None


def _lines(path: Path, name: str, text: str, field: str) -> Iterator[Record]:
    empty = True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"data.source: {path}, line {number} is not JSON ({error}).") from None
        if not isinstance(value, dict) or not isinstance(value.get(field), str):
            raise Refusal(f"data.source: {path}, line {number} has no text in {field!r} (data.text_field).")
        try:
            value[field].encode()
        except UnicodeEncodeError:
            raise Refusal(f"data.source: {path}, line {number} holds half of a surrogate pair: no text.") from None
        if value[field]:
            empty = False
            yield Record(f"{name}:{number}", value[field])
    if empty:
        raise Refusal(f"data.source: {path} is empty.")


def _prose(name: str, text: str) -> Iterator[Record]:
    """Yield one record of a module: its docstrings and blocks of comments, in order of appearance."""
    blocks: list[tuple[int, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning of old escapes
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    blocks.append((node.body[0].lineno, docstring))
    comment: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            if comment and token.start[0] != last + 1:
                blocks.append((last, "\n".join(comment)))
                comment = []
            comment.append(token.string.lstrip("#").strip())
            last = token.start[0]
    if comment:
        blocks.append((last, "\n".join(comment)))
    prose = "\n\n".join(block.strip() for _, block in sorted(blocks) if block.strip())
    if prose:
        yield Record(f"{name}#prose", prose + "\n", name)


def _topics(name: str, text: str) -> Iterator[Record]:
    """Yield the pages of Python's language reference that `help()` shows."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            for topic, page in ast.literal_eval(node).items():
                yield Record(f"{name}#{topic}", page)
            return


def _stamps(root: Path, paths: list[Path]) -> str:
    """Return name, size and time of every file: equal stamps mean that nothing needs to be read again."""
    return json.dumps([[p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in paths])
