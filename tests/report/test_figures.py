"""Which figures a page has: what is known first, whatever else a run wrote after it, nothing left out."""

import math
import re

import pytest

from lm.report import figures, record

ROWS = [
    (3, {"zeta": 1.0, "grad_norm": 2.0, "train/loss": 7.5, "norm/^a|b$<i>": 1.0, "noise/scale": math.nan}),
    (5, {"valid/loss": 3.0, "valid/wiki/loss": 4.0}),
    (6, {"zeta": -1.0, "grad_norm": 3.0, "train/loss": 6.5, "norm/^a|b$<i>": 1000.0, "noise/scale": math.inf}),
]


@pytest.fixture
def runs(make_run):
    """Return two records, one with a metric that the other lacks."""
    return [record.read(make_run("a", ROWS)), record.read(make_run("b", [*ROWS, (7, {"valid/bits_per_byte": 1.5})]))]


def test_known_metrics_come_in_their_order_then_the_others_by_name(runs):
    assert figures.names(runs) == (
        ["train/loss", "valid/loss", "valid/bits_per_byte", "grad_norm"],
        ["norm/^a|b$<i>", "valid/wiki/loss", "zeta"],
    )
    assert figures.names([]) == ([], [])


def test_a_figure_has_a_line_a_run_over_each_axis(runs):
    drawn = figures.figure(runs, "zeta", ("step", "tokens"))
    assert re.findall(r'<div class="by-(\w+)">', drawn) == ["step"]  # nobody knows the tokens of these runs
    colours = set(re.findall(r"stroke: (#\w{6}); stroke-width: 1.3", drawn))
    assert len(colours) == 2
    assert len(re.findall(r"stroke-width: 1.3", figures.figure(runs, "valid/bits_per_byte"))) == 1


def test_a_title_is_the_meaning_or_the_name_as_written(runs):
    assert "<figcaption>gradient norm</figcaption>" in figures.figure(runs, "grad_norm")
    assert "<figcaption>norm/^a|b$&lt;i&gt;</figcaption>" in figures.figure(runs, "norm/^a|b$<i>")


def test_wide_ranges_above_zero_are_logarithmic(runs):
    ticks = lambda name: re.findall(r"<text [^>]*>([^<]*)</text>", figures.figure(runs, name))
    assert {"1", "10", "100", "1000"} <= set(ticks("norm/^a|b$<i>"))
    assert {"−1.00", "0.00", "1.00"} <= set(ticks("zeta"))


def test_what_is_measured_on_batches_is_a_running_mean(make_run):
    rows = [(step, {"train/wiki/loss": float(step % 2), "valid/loss": float(step % 2)}) for step in range(200)]
    run = record.read(make_run("a", rows))
    assert set(figures.line(run, "train/wiki/loss", "step").y[4:]) == {0.5}  # of 200 / 50 rows
    assert set(figures.line(run, "valid/loss", "step").y) == {0.0, 1.0}


def test_a_section_folds_the_others_and_names_what_never_was_finite(runs):
    shown = figures.section(["<p>first</p>"], ["<p>second</p>", "<p>third</p>"], runs)
    assert shown.index("first") < shown.index("<summary>2 more curves</summary>") < shown.index("second")
    assert "Never finite: noise/scale." in shown
    assert figures.section([], [], []) == "<p>No step is logged yet.</p>"
