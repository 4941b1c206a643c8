"""Numbers in, curves as inline SVG out."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

_INK = "#010203"  # stands for the page's own colour of text until the SVG is written
_COLOURS = (
    "#3b82f6", "#ef4444", "#10b981", "#a855f7", "#f59e0b", "#06b6d4", "#ec4899", "#84a512", "#a16207", "#64748b",
)  # fmt: skip
_DASHES = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))  # for lines beyond the colours
_MOST = 1500  # points of a line; a figure is about 400 pixels wide
_MARGINS = {"left": 0.115, "right": 0.985, "bottom": 0.15, "top": 0.93}  # fixed: to fit them doubles a figure's time
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


class Line(NamedTuple):
    """A curve: its points, its label for the legend ("": none), and which colour and dashes it has."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    place: int = 0


def curves(
    lines: Sequence[Line], x_label: str, name: str, is_log: bool = False, levels: Sequence[tuple[str, float]] = ()
) -> str:
    """Return an SVG element with the lines, and a dashed one per (label, level).

    Args:
      lines: at least one of them has points.
      x_label: what x counts.
      name: tells this figure from the others of a page.
      is_log: y is logarithmic, if any of it is above 0.
      levels: in the legend too.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{name} {x_label}"}):
        figure = Figure(figsize=(5.2, 3.0))
        axes = figure.subplots(gridspec_kw=_MARGINS)
        for line in lines:
            colour, dashes = _look(line.place)
            few = {"marker": "o", "markersize": 3} if len(line.x) < 12 else {}
            axes.plot(*thinned(line.x, line.y), label=line.label, color=colour, dashes=dashes, linewidth=1.3, **few)
        for label, level in levels:
            axes.axhline(level, linestyle="--", linewidth=1, color="#808080", label=label)
        axes.set_xlabel(x_label)
        if is_log and any(value > 0 for line in lines for value in line.y):
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        for one in (axes.xaxis, axes.yaxis):
            if one.get_scale() == "linear" and max(map(abs, one.get_view_interval())) >= 1e4:
                one.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if any(line.label for line in lines):
            axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :].replace(_INK, "currentColor")


def swatch(place: int) -> str:
    """Return the SVG of a short stroke that looks as the line of that place."""
    colour, dashes = _look(place)
    stroke = f'stroke="{colour}" stroke-width="3" stroke-dasharray="{" ".join(str(2 * part) for part in dashes)}"'
    return f'<svg class="swatch" width="26" height="8" aria-hidden="true"><path d="M0 4H26" {stroke}/></svg>'


def _look(place: int) -> tuple[str, tuple[float, ...]]:
    return _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and those up to `window` − 1 before it."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return at most _MOST of the points: of neighbours the lowest and the highest, so that no spike is lost."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) <= _MOST:
        return x, y
    parts = np.array_split(np.arange(len(x)), _MOST // 2)
    kept = np.sort([part[pick(y[part])] for part in parts for pick in (np.argmin, np.argmax)])
    return x[kept], y[kept]
