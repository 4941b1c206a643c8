"""Records in, a figure per metric out: the known ones first, by what they mean, then whatever else a run wrote."""

import html
from collections.abc import Iterable, Sequence

from lm.report import document, plots
from lm.report.record import AXES, Record, along

KNOWN = {
    "train/loss": "training loss (nats per token, running mean)",
    "valid/loss": "validation loss (nats per token)",
    "valid/accuracy": "validation accuracy",
    "valid/span_exact_match": "held-out spans restored exactly",
    "valid/bits_per_byte": "validation bits per byte",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
}
_LOG = ("grad_norm",)
_WIDE = 100.0  # an unknown metric whose largest value is more times its smallest than this is drawn logarithmic


def names(runs: Iterable[Record]) -> tuple[list[str], list[str]]:
    """Return the metrics that have a finite value in some run: those KNOWN in their order, the others by name."""
    found = {name for run in runs for name, (steps, _) in run.series.items() if steps}
    return [name for name in KNOWN if name in found], sorted(found - set(KNOWN))


def line(run: Record, name: str, axis: str, label: str = "", place: int = 0) -> plots.Line:
    """Return a run's curve of a metric; what is measured on single batches (`train/…`) as a running mean."""
    x, y = along(run, name, axis)
    return plots.Line(x, plots.smoothed(y, max(1, len(y) // 50)) if name.startswith("train/") else y, label, place)


def figure(runs: Sequence[Record], name: str, axes: Iterable[str] = ("step",)) -> str:
    """Return the figure of a metric, a line a run; over each axis, of which the page shows one."""
    drawn = [(axis, [line(run, name, axis, place=place) for place, run in enumerate(runs)]) for axis in axes]
    shown = [
        f'<div class="by-{axis}">{plots.curves(lines, AXES[axis], name, _is_log(name, lines))}</div>'
        for axis, lines in drawn
        if any(len(one.x) for one in lines)
    ]
    return framed(KNOWN.get(name, name), "".join(shown))


def section(known: Sequence[str], others: Sequence[str], runs: Sequence[Record]) -> str:
    """Return the figures, those of the other metrics folded, and a word on metrics that never were finite."""
    if not known and not others:
        return "<p>No step is logged yet.</p>"
    grid = lambda figures: f'<div class="curves">{"".join(figures)}</div>'
    drawn = set().union(*names(runs))
    undrawn = ", ".join(sorted({name for run in runs for name in run.series} - drawn))
    more = document.folded(f"{len(others)} more curves", grid(others)) if others else ""
    return grid(known) + more + (f'<p class="note">Never finite: {html.escape(undrawn)}.</p>' if undrawn else "")


def framed(title: str, drawing: str) -> str:
    """Return a drawing with its title."""
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{drawing}</figure>"


def _is_log(name: str, lines: Sequence[plots.Line]) -> bool:
    values = [value for one in lines for value in one.y]
    is_wide = min(values) > 0 and max(values) > _WIDE * min(values)
    return name in _LOG or (is_wide and name not in {*KNOWN, *AXES})
