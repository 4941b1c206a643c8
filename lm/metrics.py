"""Rows (step, name, value): written to a workdir and mirrors, read back; and progress for people.

On a disk they are lines of metrics.jsonl. On an object store, where nothing is appended, each attempt at the run has
parts of its own, which say after which step it began; the reader leaves out what was after that before.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import tqdm

from lm import storage, workdir
from lm.mirrors import Mirrors


class Row(NamedTuple):
    """One number of a run: all that reports read."""

    step: int
    name: str
    value: float


_PART_SECONDS = 15.0  # a part is written anew so often, with what has come
_PART_BYTES = 1 << 20  # from here on a part is left as it is, and another is begun
_AFTER = "after"  # the step that an attempt goes on from, in the first line of its first part


def read(folder: Path) -> list[Row]:
    """Return the rows of a workdir in order; a last line torn by a kill is left out."""
    lines = _lines(folder)
    return [Row(values["step"], name, value) for values in lines for name, value in values.items() if name != "step"]


def _lines(folder: Path) -> list[dict[str, float]]:
    """Return the lines of all attempts that still count."""
    path = folder / workdir.METRICS
    kept = list(_parsed(path)) if path.exists() else []
    for part in _parts(folder):
        for values in _parsed(part):
            if _AFTER in values:
                kept = [before for before in kept if before["step"] <= values[_AFTER]]
            else:
                kept.append(values)
    return kept


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / workdir.PARTS).glob("*.jsonl"))


def _parsed(path: Path) -> Iterator[dict[str, float]]:
    for line in path.read_bytes().decode(errors="replace").split("\n"):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step", values.get(_AFTER)), int):
            yield values


class _Appended:
    """Lines at the end of a file on a disk; parts from an object store are made a file again."""

    def __init__(self, folder: Path, step: int):
        path = folder / workdir.METRICS
        kept = [values for values in _lines(folder) if values["step"] <= step]
        workdir.write(path, "".join(json.dumps(values) + "\n" for values in kept))
        storage.remove(folder / workdir.PARTS)
        self._file = open(path, "a", encoding="utf-8")

    def add(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


class _InParts:
    """Lines in objects, each small enough to be written anew from time to time."""

    def __init__(self, folder: Path, step: int):
        self._folder = folder / workdir.PARTS
        self._number = max((int(part.stem) for part in _parts(folder)), default=0)
        self._begin(json.dumps({_AFTER: step}) + "\n")
        self.sync()

    def _begin(self, text: str) -> None:
        self._number, self._text, self._size, self._since = self._number + 1, [text], len(text), time.monotonic()

    def add(self, line: str) -> None:
        self._text.append(line)
        self._size += len(line)
        if self._size >= _PART_BYTES:
            self.sync()
            self._begin("")
        elif time.monotonic() - self._since >= _PART_SECONDS:
            self.sync()

    def sync(self) -> None:
        if text := "".join(self._text):
            workdir.write(self._folder / f"{self._number:06d}.jsonl", text)
        self._since = time.monotonic()

    def close(self) -> None:
        self.sync()


class Writer:
    """Appends rows to a workdir's and to the mirrors named; `say` is told of one that fails.

    Rows after `step` are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, step: int, mirrors: Sequence[str] = (), say: Callable[[str], None] = print):
        self._lines = (_InParts if storage.is_far(folder) else _Appended)(folder, step)
        self._mirrors = Mirrors(mirrors, folder, step, say)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line: the values of one step."""
        self._lines.add(json.dumps({"step": step, **values}) + "\n")
        self._mirrors.write(step, values)

    def sync(self) -> None:
        """Make what was written survive a crash of the machine."""
        self._lines.sync()

    def close(self) -> None:
        """Sync and close all."""
        self._lines.close()
        self._mirrors.close()


class Unwritten:
    """The Writer of a process that is not the main one: nothing is written."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Leave it to the main process."""

    def sync(self) -> None:
        """Nothing is to be kept."""

    def close(self) -> None:
        """Nothing is open."""


class Progress:
    """A bar with loss, tokens per second and time left; plain lines where the output is no terminal."""

    def __init__(self, step: int, steps: int, out: IO[str] = sys.stderr):
        self._out, self._steps, self._start, self._begun = out, steps, step, time.monotonic()
        self._is_terminal = out.isatty()
        self._next = 0.0
        self._bar = tqdm.tqdm(
            total=steps, initial=step, unit="step", file=out, dynamic_ncols=True, disable=not self._is_terminal
        )

    def show(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Show that `step` is done; as plain lines, at most one in five seconds."""
        words = f"loss {loss:.3f}, {_short(tokens_per_second)} tokens/s"
        if self._is_terminal:
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 5.0
            seconds = (time.monotonic() - self._begun) / max(1, step - self._start) * (self._steps - step)
            left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
            print(f"step {step}/{self._steps}: {words}, {left}", file=self._out, flush=True)

    def track(self, items: Iterable[Any], total: int) -> Iterator[Any]:
        """Yield the items of a validation pass under a bar of their own."""
        is_hidden = not self._is_terminal
        yield from tqdm.tqdm(items, "validation", total, leave=False, unit="batch", file=self._out, disable=is_hidden)

    def say(self, words: str) -> None:
        """Print a line without breaking the bar."""
        if self._is_terminal:
            self._bar.write(words, file=self._out)
        else:
            print(words, file=self._out, flush=True)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def _short(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.1f}k" if number >= 1e3 else f"{number:.0f}"
