"""Curves: whole SVG that takes the page's colour of text, lines told apart, spikes kept."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lm.report import plots
from lm.report.plots import Line


def test_an_svg_stands_alone_and_takes_the_page_s_ink():
    svg = plots.curves([Line([1, 2, 5], [3.0, 2.0, 7.0], "one", 3)], "step", "n", levels=[("level <x>", 2.5)])
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    texts = {element.text for element in root.iter() if element.text}
    assert {"step", "one", "level <x>"} <= texts
    assert "currentColor" in svg and "#010203" not in svg and "#000000" not in svg


def test_figures_of_one_page_share_no_reference():
    lines = [Line(range(20), range(20))]
    references = [set(re.findall(r'href="#(\w+)"', plots.curves(lines, "step", name))) for name in ("a", "b")]
    assert all(references) and not references[0] & references[1]
    assert plots.curves(lines, "step", "a") == plots.curves(lines, "step", "a")


def test_forty_lines_look_different():
    assert len({plots.swatch(place) for place in range(40)}) == 40
    ElementTree.fromstring(plots.swatch(11))


@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [0.0, 3.0], [-1.0, 5.0], [1e-45, 3e38], [1e-5, 1e6], [2.0, 2.0], [12345.0, 6e7]]
)
@pytest.mark.parametrize("is_log", [False, True])
def test_any_finite_values_can_be_drawn(values, is_log):
    svg = plots.curves([Line([1, 2], values)], "step", "n", is_log)
    labels = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
    assert len(labels) > 2  # more than the label of x: both axes have ticks


@pytest.mark.parametrize("window", [1, 3, 7, 11])
def test_smoothed_is_the_mean_of_the_last_ones(window):
    values = np.random.default_rng(3).normal(size=7)
    expected = [values[max(0, place + 1 - window) : place + 1].mean() for place in range(7)]
    np.testing.assert_allclose(plots.smoothed(values, window), expected, rtol=1e-12)


def test_thinning_keeps_the_order_and_every_spike():
    x = np.arange(9973)
    y = np.random.default_rng(5).normal(size=9973)
    spikes = [17, 4001, 9972]
    y[spikes] = [90.0, -90.0, 99.0]
    kept_x, kept_y = plots.thinned(x, y)
    assert len(kept_x) <= 1500 and np.all(np.diff(kept_x) >= 0)
    assert set(spikes) <= set(kept_x) and np.array_equal(y[kept_x.astype(int)], kept_y)
    assert np.array_equal(plots.thinned(x[:1499], y[:1499])[1], y[:1499])
