"""A workdir in, its report.html out: verdict, curves, samples, config and environment on one page."""

import html
import json
import math
from pathlib import Path
from typing import Any

from lm import metrics, workdir
from lm.config import schema
from lm.report import plots

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.verdict div { border: 1px solid #8884; border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; }
.verdict b { display: block; font-size: 1.35rem; } .verdict span, .note { opacity: .7; font-size: .85rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1rem; }
.curves svg { width: 100%; height: auto; background: #fff; border-radius: 8px; }
pre { background: #8881; padding: .8rem; border-radius: 8px; overflow-x: auto; white-space: pre-wrap; }
table { border-collapse: collapse; font-size: .88rem; } td, th { text-align: left; padding: .15rem .9rem .15rem 0; }
tr.set td { font-weight: 600; } summary { cursor: pointer; font-weight: 600; margin-top: 1rem; }
"""


def write(folder: Path) -> None:
    """Write the report of what the workdir holds now."""
    facts = json.loads((folder / workdir.RUN).read_text(encoding="utf-8"))
    config = json.loads((folder / workdir.CONFIG).read_text(encoding="utf-8"))
    rows = metrics.read(folder / workdir.METRICS)
    samples = folder / workdir.SAMPLES
    text = samples.read_text(encoding="utf-8") if samples.exists() else "none yet"
    parts = [
        f"<h1>{html.escape(folder.resolve().name)}</h1>",
        f"<p class=note>{html.escape(_summary(facts, config, rows))}</p>",
        f"<div class=verdict>{''.join(map(_card, _verdict(facts, rows)))}</div>",
        f"<h2>Curves</h2><div class=curves>{''.join(_curves(facts, rows))}</div>",
        f"<h2>Samples</h2><pre>{html.escape(text)}</pre>",
        f"<details><summary>Config</summary>{_config_table(config)}</details>",
        f"<details><summary>Environment and data</summary><pre>{html.escape(_pretty(facts))}</pre></details>",
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(folder.resolve().name)}</title><style>{_STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    workdir.write(folder / workdir.REPORT, page)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1)


def _series(rows: list[metrics.Row], name: str) -> tuple[list[int], list[float]]:
    found = [(row.step, row.value) for row in rows if row.name == name and math.isfinite(row.value)]
    return [step for step, _ in found], [value for _, value in found]


def _last(rows: list[metrics.Row], name: str) -> float | None:
    values = _series(rows, name)[1]
    return values[-1] if values else None


def _summary(facts: dict[str, Any], config: dict[str, Any], rows: list[metrics.Row]) -> str:
    done = max((row.step for row in rows), default=0)
    state = "finished" if facts["finished"] else "not finished"
    words = (
        f"{state}: step {done:,} of {config['train.steps']:,}; {facts['data']['source']}, {config['data.tokenizer']}; "
    )
    return words + f"{facts['devices']} × {facts['device_kind']} ({facts['backend']})"


def _verdict(facts: dict[str, Any], rows: list[metrics.Row]) -> list[tuple[str, str]]:
    """Return (value, label) for each number that a reader wants first."""
    cards = []
    for name, label, form in (
        ("valid/loss", "validation loss, nats per token", "{:.4f}"),
        ("valid/perplexity", "validation perplexity", "{:.2f}"),
        ("valid/bits_per_byte", "validation bits per byte", "{:.4f}"),
    ):
        value = _last(rows, name)
        cards.append(("–" if value is None else form.format(value), label))
    packed = xz_bits_per_byte(facts)
    if packed:
        cards.append((f"{packed:.4f}", "bits per byte of xz -9 on the same text"))
    seconds, tokens = _last(rows, "seconds"), _last(rows, "tokens")
    if seconds and tokens:
        cards.append((f"{tokens / seconds:,.0f}", "tokens per second in training"))
        cards.append((f"{seconds:,.0f} s", "in training steps"))
    mfu = _last(rows, "mfu")
    cards.append((f"{mfu:.1%}" if mfu else "unknown device", "model FLOPs utilisation"))
    cards.append((f"{facts['parameters']:,}", "parameters"))
    skipped = _last(rows, "skipped")
    if skipped:
        cards.append((f"{skipped:.0f}", "steps skipped as not finite"))
    return cards


def xz_bits_per_byte(facts: dict[str, Any]) -> float | None:
    """Return bits per byte of `xz -9` on the validation text, from run.json; None where that was too long."""
    valid = facts["data"]["valid"]
    return 8 * valid["xz_bytes"] / valid["bytes"] if valid["xz_bytes"] else None


def _card(card: tuple[str, str]) -> str:
    value, label = card
    return f"<div><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"


def _curves(facts: dict[str, Any], rows: list[metrics.Row]) -> list[str]:
    steps, losses = _series(rows, "train/loss")
    if not steps:
        return ["<p>No step is logged yet.</p>"]
    window = max(1, len(losses) // 50)
    loss = [("training", steps, plots.smoothed(losses, window)), ("validation", *_series(rows, "valid/loss"))]
    packed = xz_bits_per_byte(facts)
    levels = [("xz -9", packed)] if packed else []
    figures = [plots.curves(loss, "step", "loss (nats per token)")]
    bits = _series(rows, "valid/bits_per_byte")
    if bits[0]:
        figures.append(plots.curves([("validation", *bits)], "step", "bits per byte", levels=levels))
    for name, label in (
        ("learning_rate", "learning rate"),
        ("grad_norm", "gradient norm"),
        ("tokens_per_second", "tokens per second"),
    ):
        figures.append(plots.curves([(label, *_series(rows, name))], "step", label, log_y=name == "grad_norm"))
    return figures


def _config_table(config: dict[str, Any]) -> str:
    lines = []
    for name, value in config.items():
        default = schema.FIELDS[name].default if name in schema.FIELDS else None
        default = list(default) if isinstance(default, tuple) else default
        mark = "" if default is None or value == default else " class=set"
        lines.append(f"<tr{mark}><td>{html.escape(name)}</td><td>{html.escape(json.dumps(value))}</td></tr>")
    return f"<table>{''.join(lines)}</table><p class=note>Bold: other than the schema's default.</p>"
