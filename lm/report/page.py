"""A workdir in, its report.html out: verdict, curves, samples, config and environment on one page."""

import html
import json
from pathlib import Path
from typing import Any

from lm import workdir
from lm.config import schema
from lm.report import document, figures, plots, record, samples
from lm.report.record import Record, last


def write(folder: Path) -> None:
    """Write the report of what the workdir holds now."""
    run = record.read(folder)
    path = folder / workdir.SAMPLES
    text = path.read_text(encoding="utf-8") if path.exists() else "none yet"
    name = folder.resolve().name
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        f'<p class="note">{html.escape(_summary(run))}</p>',
        f'<div class="verdict">{"".join(map(_card, _verdict(run)))}</div>',
        f"<h2>Curves</h2>{figures.section(*_curves(run), [run])}",
        f"<h2>Samples</h2>{samples.section(text)}",
        document.folded("Config", _config_table(run.config)),
        document.folded("Environment and data", f"<pre>{html.escape(json.dumps(run.facts, indent=1))}</pre>"),
    ]
    workdir.write(folder / workdir.REPORT, document.page(name, parts))


def _summary(run: Record) -> str:
    words = f"{record.state(run)}; {run.config['data.source']}, {run.config['data.tokenizer']}"
    facts = run.facts
    return words + (f"; {facts['devices']} × {facts['device_kind']} ({facts['backend']})" if facts else "")


def _verdict(run: Record) -> list[tuple[str, str]]:
    """Return (value, label) for each number that a reader wants first."""
    cards = []
    for name, label, form in (
        ("valid/loss", "validation loss, nats per token", "{:.4f}"),
        ("valid/perplexity", "validation perplexity", "{:.2f}"),
        ("valid/accuracy", "of held-out targets are the likeliest id or class", "{:.1%}"),
        ("valid/baseline_accuracy", "are the most frequent target of the training text", "{:.1%}"),
        ("valid/span_exact_match", "of held-out spans restored exactly", "{:.1%}"),
        ("valid/baseline_span_exact_match", "are only the most frequent token", "{:.1%}"),
        ("valid/bits_per_byte", "validation bits per byte", "{:.4f}"),
    ):
        if (value := last(run, name)) is not None:
            cards.append((form.format(value), label))
            if name == "valid/bits_per_byte" and (packed := _xz_bits_per_byte(run)):
                cards.append((f"{packed:.4f}", "bits per byte of xz -9 on the same text"))
    if speed := record.speed(run):
        cards.append((f"{speed:,.0f}", "tokens per second in training"))
        cards.append((f"{last(run, 'seconds'):,.0f} s", "in training steps"))
    mfu = last(run, "mfu")
    cards.append((f"{mfu:.1%}" if mfu else "unknown device", "model FLOPs utilisation"))
    if run.facts:
        cards.append((f"{run.facts['parameters']:,}", "parameters"))
    if skipped := last(run, "skipped"):
        cards.append((f"{skipped:.0f}", "steps skipped as not finite"))
    return cards


def _xz_bits_per_byte(run: Record) -> float | None:
    """Return bits per byte of `xz -9` on the validation text, from run.json; None where that was too long."""
    valid = run.facts["data"]["valid"] if run.facts else {"xz_bytes": None}
    return 8 * valid["xz_bytes"] / valid["bytes"] if valid["xz_bytes"] else None


def _card(card: tuple[str, str]) -> str:
    value, label = card
    return f"<div><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"


def _curves(run: Record) -> tuple[list[str], list[str]]:
    """Return the figures of the known metrics, both losses in one, and those of all others."""
    known, others = figures.names([run])
    shown = []
    losses = [
        figures.line(run, name, "step", label, place)
        for place, (name, label) in enumerate((("train/loss", "training, running mean"), ("valid/loss", "validation")))
        if name in known
    ]
    if losses:
        shown.append(figures.framed("loss (nats per token)", plots.curves(losses, "step", "loss")))
    for name in ("accuracy", "span_exact_match"):
        if f"valid/{name}" in known:
            lines = [figures.line(run, f"valid/{name}", "step", "validation")]
            level = last(run, f"valid/baseline_{name}")
            levels = [("the most frequent target", level)] if level is not None else []
            shown.append(
                figures.framed(figures.KNOWN[f"valid/{name}"], plots.curves(lines, "step", name, levels=levels))
            )
    if "valid/bits_per_byte" in known:
        packed = _xz_bits_per_byte(run)
        lines = [figures.line(run, "valid/bits_per_byte", "step", "validation")]
        levels = [("xz -9 on the same text", packed)] if packed else []
        shown.append(figures.framed("bits per byte", plots.curves(lines, "step", "bits", levels=levels)))
    shown += [figures.figure([run], name) for name in known if not name.startswith(("train/", "valid/"))]
    return shown, [figures.figure([run], name) for name in others]


def _config_table(config: dict[str, Any]) -> str:
    rows = []
    for name, value in config.items():
        default = schema.FIELDS[name].default if name in schema.FIELDS else None
        default = list(default) if isinstance(default, tuple) else default
        mark = "" if default is None or value == default else "set"
        rows.append((mark, (html.escape(name), html.escape(json.dumps(value)))))
    return document.table((), rows) + '<p class="note">Bold: other than the schema\'s default.</p>'
