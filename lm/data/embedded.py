"""Python's own standard library in; its records out: text that is present wherever this runs."""

import ast
import functools
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.data import passages
from lm.data.sources import Record, Source, stamps

_LETTERS = 40  # that a passage must have to tell its kind by


def embedded(part: str, section: Any) -> Source:
    """Python's own standard library, read in place: `prose` (docstrings, comments, help topics), `code`, or both;
    or pairs of it: `summaries`, `kinds`.
    """
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
                yield Record(f"{name}#code", text, document=name)
            if part in ("", "prose"):
                yield from _topics(name, text) if name == "pydoc_data/topics.py" else _prose(name, text)
            if part in _PAIRS:
                yield from _PAIRS[part](name, text)

    return Source(lambda: iter(read()), f"embedded {stamps(root, paths)}", sum(path.stat().st_size for path in paths))


def _prose(name: str, text: str) -> Iterator[Record]:
    """Yield one record of a module: its docstrings and blocks of comments, in order of appearance."""
    blocks = [*passages.docstrings(text), *passages.comments(text)]
    prose = "\n\n".join(block.strip() for _, block in sorted(blocks) if block.strip())
    if prose:
        yield Record(f"{name}#prose", prose + "\n", document=name)


def _topics(name: str, text: str) -> Iterator[Record]:
    """Yield the pages of Python's language reference that `help()` shows."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            for topic, page in ast.literal_eval(node).items():
                yield Record(f"{name}#{topic}", page)
            return


def _summaries(name: str, text: str) -> Iterator[Record]:
    """Yield a pair for each docstring of more than one line as PEP 257 has it: a line, an empty one, and the rest.

    The rest is the input, and the first line, which sums it up, is the target.
    """
    for line, docstring in passages.docstrings(text):
        first, _, rest = docstring.partition("\n")
        if rest.startswith("\n") and rest.strip():
            yield Record(f"{name}#{line}", rest.strip(), first.strip(), name)


def _kinds(name: str, text: str) -> Iterator[Record]:
    """Yield a pair for each passage of some length, the name of its kind being the target."""
    for kind, read in passages.KINDS.items():
        for line, passage in read(text):
            if sum(map(str.isalnum, passage)) >= _LETTERS:
                yield Record(f"{name}#{kind}:{line}", passage.strip(), kind, name)


_PAIRS = {"summaries": _summaries, "kinds": _kinds}
