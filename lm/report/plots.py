"""Rows in, curves as inline SVG out."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

Series = tuple[str, Sequence[float], Sequence[float]]  # (label, x, y)

_COLOURS = ("#2563eb", "#dc2626", "#059669", "#9333ea")


def curves(
    series: Sequence[Series], x_label: str, y_label: str, log_y: bool = False, levels: Sequence[tuple[str, float]] = ()
) -> str:
    """Return an SVG element with one line per series, and a dashed line per (label, level)."""
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "lm"}
    ):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.subplots()
        for (label, x, y), colour in zip(series, _COLOURS, strict=False):
            axes.plot(x, y, label=label, color=colour, linewidth=1.3, marker="o" if len(x) < 12 else None, markersize=3)
        for label, level in levels:
            axes.axhline(level, linestyle="--", linewidth=1, color="#6b7280", label=label)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if log_y:
            axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) + len(levels) > 1:
            axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and those up to `window` − 1 before it."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means
