"""Records in; the table of what came of each run out: a row a run, the best of a column marked."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm.report import record
from lm.report.record import Record

_LOSS, _BITS = "loss", "bits"  # what must be equal before values of a column compare
_LOSSY = {"char", "wordpiece"}  # kinds that do not keep all of a text, whose bytes count all the same


class Column(NamedTuple):
    """One number of a run. best: which of several is the best. needs: what these must have in common for that."""

    title: str
    value: Callable[[Record], float | None]
    form: str
    best: Callable[[list[float]], float] | None = None
    needs: str = ""


def _metric(title: str, name: str, form: str, needs: str) -> list[Column]:
    return [
        Column(f"{title}, last", lambda run: record.last(run, name), form, min, needs),
        Column(f"{title}, best", lambda run: record.least(run, name), form, min, needs),
    ]


COLUMNS = [
    Column("parameters", lambda run: run.facts.get("parameters"), "{:,}"),
    Column("steps", lambda run: run.step, "{:,}"),
    Column("tokens", lambda run: record.last(run, "tokens"), "{:,.0f}"),
    Column("seconds", lambda run: record.last(run, "seconds"), "{:,.0f}"),
    Column("tokens/s", record.speed, "{:,.0f}", max),
    *_metric("valid loss", "valid/loss", "{:.4f}", _LOSS),
    *_metric("perplexity", "valid/perplexity", "{:.2f}", _LOSS),
    *_metric("bits/byte", "valid/bits_per_byte", "{:.4f}", _BITS),
]


class Cell(NamedTuple):
    """What stands in the table. is_best: no other run's is better."""

    text: str
    is_best: bool = False


def table(runs: Sequence[Record]) -> list[list[Cell]]:
    """Return a row of cells per run: its state, then COLUMNS; "–" where there is no number."""
    lacks = _lacks(runs)
    rows = [[Cell(record.state(run))] for run in runs]
    for column in COLUMNS:
        values = [column.value(run) for run in runs]
        known = [value for value in values if value is not None]
        is_ranked = column.best and len(known) > 1 and column.needs not in lacks
        best = column.best(known) if is_ranked else None
        for row, value in zip(rows, values, strict=True):
            row.append(Cell("–") if value is None else Cell(column.form.format(value), value == best))
    return rows


def plain(names: Sequence[str], runs: Sequence[Record]) -> str:
    """Return the table as text, a * at the best of a column."""
    lines = [["run", "state "], ["", ""]]
    for column in COLUMNS:
        title, _, which = column.title.partition(", ")
        lines[0].append(f"{title} ")
        lines[1].append(f"{which} ")
    for name, row in zip(names, table(runs), strict=True):
        lines.append([name, *(f"{cell.text}{'*' if cell.is_best else ' '}" for cell in row)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    align = lambda line: [
        line[0].ljust(widths[0]),
        *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
    ]
    return "\n".join("  ".join(align(line)).rstrip() for line in lines)


def warning(runs: Sequence[Record]) -> str:
    """Return the sentence that says which numbers of these runs do not compare, or nothing when all do."""
    lacks = _lacks(runs)
    if not lacks:
        return ""
    words = "The runs differ in their data or tokenizer (data.fingerprint), so losses and perplexities do not compare; "
    if _BITS in lacks:
        return words + "nor do bits per byte, since the held-out texts differ too, or what a tokenizer keeps of them."
    (text,) = _held_out(runs)
    return words + f"bits per byte do, since the held-out text has the same {text[1]:,} bytes in each."


def _lacks(runs: Sequence[Record]) -> set[str]:
    """Return which kinds of number do not compare, as far as the runs' facts are known."""
    prints = {run.facts["data"]["fingerprint"] for run in runs if run.facts}
    if len(prints) < 2:
        return set()
    kinds = {run.config["data.tokenizer"].partition(":")[0] for run in runs if run.facts}
    are_whole = len(kinds) == 1 or not kinds & _LOSSY
    return {_LOSS} if len(_held_out(runs)) == 1 and are_whole else {_LOSS, _BITS}


def _held_out(runs: Sequence[Record]) -> set[tuple[Any, ...]]:
    """Return what tells the held-out texts apart, without regard to tokens."""
    return {
        tuple(run.facts["data"]["valid"][key] for key in ("records", "bytes", "xz_bytes")) for run in runs if run.facts
    }
