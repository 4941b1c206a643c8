"""Workdirs in, one page that compares their runs out: verdicts, curves, and what of config and machine differs."""

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm import workdir
from lm.config import schema
from lm.config.field import FREE
from lm.config.files import to_json
from lm.report import document, figures, plots, record, verdict
from lm.report.record import AXES, Record

_HIDE = "".join(
    f"#over-{axis}:not(:checked) ~ * .by-{axis} {{ display: none; }}\n"
    f"#over-{axis}:checked ~ .bar label[for=over-{axis}] {{ background: var(--line); font-weight: 600; }}\n"
    f"#over-{axis}:focus-visible ~ .bar label[for=over-{axis}] {{ outline: 2px solid; }}\n"
    for axis in AXES
)
_STYLE = f"""
{_HIDE}.over {{ position: absolute; opacity: 0; }}
.bar {{ position: sticky; top: 0; z-index: 1; background: Canvas; padding: .5rem 0; margin-bottom: .5rem;
  display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: .88rem; border-bottom: 1px solid var(--line); }}
.bar label {{ cursor: pointer; border: 1px solid var(--line); border-radius: 6px; padding: 0 .6rem; }}
.swatch {{ vertical-align: middle; margin-right: .4rem; }}
"""


def write(runs: Sequence[Record], out: Path) -> None:
    """Write the page of several runs."""
    names = record.names([run.folder for run in runs])
    shown = [
        f'<span title="{html.escape(str(run.folder))}">{plots.swatch(place)}{html.escape(name)}</span>'
        for place, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    warning = verdict.warning(runs)
    parts = [
        f"<h1>{len(runs)} runs</h1>",
        f'<p class="warning">{html.escape(warning)}</p>' if warning else "",
        _verdict(shown, runs),
        f"<h2>Curves</h2>{_curves(shown, runs)}",
        f"<h2>Config: the fields that differ</h2>{_config(shown, runs)}",
        f"<h2>Environment and data: the facts that differ</h2>{_environment(shown, runs)}",
    ]
    workdir.write(out, document.page(f"{len(runs)} runs: {', '.join(names)}", parts, _STYLE))


def _verdict(shown: Sequence[str], runs: Sequence[Record]) -> str:
    head = ["run", "state", *(column.title.replace(", ", "<br>") for column in verdict.COLUMNS)]
    marked = lambda cell: f'<span class="best">{cell.text}</span>' if cell.is_best else cell.text
    rows = [("", [name, *map(marked, row)]) for name, row in zip(shown, verdict.table(runs), strict=True)]
    return document.table(head, rows, "numbers")


def _curves(shown: Sequence[str], runs: Sequence[Record]) -> str:
    """Return every metric's figure over each axis, and the buttons that choose the axis."""
    known, others = ([figures.figure(runs, name, AXES) for name in part] for part in figures.names(runs))
    buttons = "".join(
        f'<input class="over" type="radio" name="over" id="over-{axis}"{" checked" if axis == "step" else ""}>'
        for axis in AXES
    )
    labels = "".join(f'<label for="over-{axis}">{axis}</label>' for axis in AXES)
    bar = f'<div class="bar"><span>over {labels}</span>{"".join(shown)}</div>'
    return f"<div>{buttons}{bar}{figures.section(known, others, runs)}</div>"


def _config(shown: Sequence[str], runs: Sequence[Record]) -> str:
    defaults = json.loads(to_json(schema.defaults()))  # of fields that have come since a run began
    is_free = lambda name: name in schema.FIELDS and schema.FIELDS[name].mark == FREE
    table = _differences(shown, [defaults | run.config for run in runs], lambda name: "free" if is_free(name) else "")
    return f'{table}<p class="note">Pale: fields that change nothing that is learned.</p>'


def _environment(shown: Sequence[str], runs: Sequence[Record]) -> str:
    facts = [_flat(run.facts) for run in runs]
    return _differences(shown, [{name: one[name] for name in one if name != "finished"} for one in facts])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted names → values of nested dictionaries."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _differences(
    shown: Sequence[str], runs: Sequence[Mapping[str, Any]], kind: Callable[[str], str] = lambda name: ""
) -> str:
    """Return a table of the names whose values are not the same in all runs that have any, a column a run."""
    rows = []
    for name in dict.fromkeys(name for values in runs for name in values):
        texts = [_text(values[name]) if name in values else "–" for values in runs]
        if len({text for text, values in zip(texts, runs, strict=True) if values}) > 1:
            rows.append((kind(name), [html.escape(text) for text in (name, *texts)]))
    return document.table(["", *shown], rows) if rows else "<p>None.</p>"


def _text(value: Any) -> str:
    """Return a value as a cell shows it: digests by their beginning."""
    if value is None:
        return "unset"
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{40,}", value) else value
    return json.dumps(value, ensure_ascii=False)
