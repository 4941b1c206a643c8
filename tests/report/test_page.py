"""A run's page: its numbers, every metric, its samples, at any time of the run."""

import math
from html.parser import HTMLParser

from lm import workdir
from lm.report import page


def written(folder):
    """Write the page; return its text."""
    page.write(folder)
    return (folder / workdir.REPORT).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects what is open, to see that every tag is closed, and all that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "input", "br", "path", "use", "rect", "img"):
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href") or "url(" in (value or "")]

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_has_the_numbers_and_every_metric_and_needs_no_network(make_run):
    rows = [
        (3, {"train/loss": 7.5, "tokens": 300, "seconds": 2.0, "mfu": 0.4321, "skipped": 2}),
        (7, {"valid/loss": 2.34567, "valid/perplexity": 10.44, "valid/bits_per_byte": 1.23456, "valid/wiki/loss": 3.0}),
    ]
    folder = make_run("a <b>", rows, {"model.width": 61})
    (folder / workdir.SAMPLES).write_text("──── step 7 ────\nif a < b & c:\n", encoding="utf-8")
    text = written(folder)
    for words in (
        "2.3457",
        "10.44",
        "1.2346",
        f"{8 * 1013 / 4001:.4f}",
        ">150<",
        "43.2%",
        "7,919",
        ">2 s<",
        "finished",
    ):
        assert words in text, words
    assert "<h1>a &lt;b&gt;</h1>" in text and "if a &lt; b &amp; c:" in text
    assert '<tr class="set"><td>model.width</td><td>61</td></tr>' in text
    for title in ("loss (nats per token)", "bits per byte", "mfu", "skipped", "valid/wiki/loss", "valid/perplexity"):
        assert f"<figcaption>{title}</figcaption>" in text
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert all(value.startswith("#") or "url(#" in value for value in tags.fetched)


def test_accuracies_stand_beside_their_baselines(make_run):
    rows = [
        (n, {"valid/loss": 3.0, "valid/accuracy": 0.1 * n, "valid/baseline_accuracy": 0.043,
             "valid/span_exact_match": 0.02 * n, "valid/baseline_span_exact_match": 0.0071})
        for n in (3, 7)
    ]  # fmt: skip
    text = written(make_run("a", rows))
    for words in (">70.0%<", ">4.3%<", ">14.0%<", ">0.7%<", "the most frequent target"):
        assert words in text, words
    for title in ("validation accuracy", "held-out spans restored exactly"):
        assert f"<figcaption>{title}</figcaption>" in text
    assert "bits per byte" not in text.replace("bits per byte of xz", "")


def test_a_run_that_has_only_begun_has_a_page(make_run):
    text = written(make_run("a", has_facts=False))
    assert "No step is logged yet" in text and "step 0 of 31" in text and "none yet" in text
    assert "No step" in written(make_run("b"))
    assert "Never finite: train/loss." in written(make_run("c", [(3, {"train/loss": math.nan, "tokens": 300})]))


def test_writing_again_shows_what_has_come_since(make_run):
    folder = make_run("a", [(3, {"train/loss": 7.5})], facts={"finished": False})
    assert "step 3 of 31" in written(folder)
    with open(folder / workdir.METRICS, "a", encoding="utf-8") as file:
        file.write('{"step": 5, "train/loss": 7.25}\n')
    assert "step 5 of 31" in written(folder)
