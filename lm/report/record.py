"""A workdir in, finished or not; what reports read of it out: config, facts, and the numbers of each metric."""

import json
import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm import metrics, storage, workdir
from lm.refusal import Refusal

AXES = {"step": "step", "tokens": "training tokens", "seconds": "seconds in training steps"}


class Record(NamedTuple):
    """One run. config: dotted names → values. facts: of run.json, empty until it is written. step: the last with a row.

    series: metric → (steps, values); values that are not finite are left out.
    """

    folder: Path
    config: dict[str, Any]
    facts: dict[str, Any]
    step: int
    series: dict[str, tuple[list[int], list[float]]]


def read(folder: Path) -> Record:
    """Return what a workdir holds now.

    Raises:
      Refusal: it is no workdir.
    """
    if not (folder / workdir.CONFIG).is_file():
        raise Refusal(f"{str(folder)!r} is not a workdir: it has no {workdir.CONFIG}; name the --workdir of a run.")
    rows = metrics.read(folder)
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        steps, values = series.setdefault(row.name, ([], []))
        if math.isfinite(row.value):
            steps.append(row.step)
            values.append(row.value)
    return Record(
        folder=folder,
        config=_json(folder / workdir.CONFIG),
        facts=_json(folder / workdir.RUN) if (folder / workdir.RUN).exists() else {},
        step=max((row.step for row in rows), default=0),
        series=series,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{path} is not JSON ({error}); the run writes it anew when it goes on.") from None


def last(record: Record, name: str) -> float | None:
    """Return a metric's last value, if it has one."""
    values = record.series.get(name, ([], []))[1]
    return values[-1] if values else None


def least(record: Record, name: str) -> float | None:
    """Return a metric's smallest value, if it has one."""
    return min(record.series.get(name, ([], []))[1], default=None)


def speed(record: Record) -> float | None:
    """Return training tokens per second over the whole run."""
    seconds, tokens = last(record, "seconds"), last(record, "tokens")
    return tokens / seconds if seconds and tokens else None


def along(record: Record, name: str, axis: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return (x, y) of a metric over an axis; rows between two of the log lie between their tokens and seconds."""
    steps, values = record.series.get(name, ([], []))
    if axis == "step":
        return steps, values
    known, amounts = record.series.get(axis, ([], []))
    x = np.interp(steps, [0, *known], [0.0, *amounts], right=np.nan)  # not known yet beyond the last row of the log
    is_known = np.isfinite(x)
    return x[is_known].tolist(), np.asarray(values, float)[is_known].tolist()


def state(record: Record) -> str:
    """Return how far the run is, in words."""
    steps = record.config.get("train.steps")
    if record.facts.get("finished"):
        return "finished"
    return f"step {record.step:,} of {steps:,}" if steps else f"step {record.step:,}"


def names(folders: Sequence[Path]) -> list[str]:
    """Return a name per folder, of the parts of its path in which they differ; none occurs twice.

    Example: `runs/a/seed0` and `runs/b/seed0` are `a` and `b`.
    """
    paths = [storage.absolute(folder).parts for folder in folders]
    equal = lambda paths: sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))
    shortest = min(map(len, paths))
    before = min(equal(paths), shortest - 1)
    after = min(equal([path[::-1] for path in paths]), shortest - 1 - before)
    return ["/".join(path[before : len(path) - after]) for path in paths]
