"""Python's own standard library in; its records out: text that is present wherever this runs."""

import ast
import functools
import io
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.data.sources import Record, Source, stamps


def embedded(part: str, section: Any) -> Source:
    """Python's own standard library, read in place: `prose` (docstrings, comments, help topics), `code`, or both."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths = [p for p in sorted(root.rglob("*.py")) if not skipped & set(p.relative_to(root).parts)]

    @functools.cache  # a build may read the records twice, and Python's tokenizer takes its time
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

    return Source(lambda: iter(read()), f"embedded {stamps(root, paths)}", sum(path.stat().st_size for path in paths))


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
