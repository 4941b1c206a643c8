"""Rows (step, name, value): written to metrics.jsonl and its mirrors, read back; and progress for people."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import tqdm

from lm import workdir
from lm.mirrors import Mirrors


class Row(NamedTuple):
    """One number of a run: all that reports read."""

    step: int
    name: str
    value: float


def read(path: Path) -> list[Row]:
    """Return the rows of a metrics file in order; a last line torn by a kill is left out."""
    return [
        Row(values["step"], name, value) for values in _lines(path) for name, value in values.items() if name != "step"
    ]


def _lines(path: Path) -> Iterator[dict[str, float]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            yield values


class Writer:
    """Appends rows to a workdir's metrics.jsonl and to the mirrors named; `say` is told of one that fails.

    Rows after `step` are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, step: int, mirrors: Sequence[str] = (), say: Callable[[str], None] = print):
        path = folder / workdir.METRICS
        kept = [values for values in _lines(path) if values["step"] <= step]
        workdir.write(path, "".join(json.dumps(values) + "\n" for values in kept))
        self._file = open(path, "a", encoding="utf-8")
        self._mirrors = Mirrors(mirrors, folder, step, say)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line: the values of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._mirrors.write(step, values)

    def sync(self) -> None:
        """Make what was written survive a crash of the machine."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close all."""
        self.sync()
        self._file.close()
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
