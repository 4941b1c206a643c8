"""The page of several runs, and the command that writes it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lm import workdir
from lm.report import compare, record

ROOT = Path(__file__).parents[2]


def rows(loss):
    """Return a few rows of a run."""
    log = [(step, {"train/loss": loss, "tokens": 100 * step, "seconds": 0.5 * step}) for step in (1, 2, 3)]
    return [*log, (3, {"valid/loss": loss, "valid/bits_per_byte": loss / 2})]


@pytest.fixture
def written(tmp_path):
    """Return a function: workdirs → the text of their page."""

    def write(*folders):
        compare.write([record.read(folder) for folder in folders], tmp_path / "compare.html")
        return (tmp_path / "compare.html").read_text(encoding="utf-8")

    return write


def tables(text):
    """Return the cells' texts of each table, rows of columns."""
    found = re.findall(r"<table.*?</table>", text, re.DOTALL)
    words = lambda cell: re.sub(r"<[^>]*>", "", cell)
    return [
        [[words(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in re.findall("<tr.*?</tr>", table)]
        for table in found
    ]


def test_the_page_has_verdicts_curves_over_three_axes_and_only_what_differs(make_run, written, facts):
    other = {"versions": facts["versions"] | {"jax": "0.11.0"}, "git_commit": "d" * 40, "devices": 8}
    first = make_run("narrow", rows(3.0), {"model.width": 61, "train.log_every": 7})
    second = make_run("wide", rows(2.0), {"model.width": 127}, other)
    text = written(first, second)
    verdict, config, environment = tables(text)
    assert [row[0] for row in verdict] == ["run", "narrow", "wide"] and verdict[1][1] == "finished"
    assert re.findall(r'class="best">(\d+\.\d+)<', text) == ["2.0000", "2.0000", "1.0000", "1.0000"]
    assert config == [["", "narrow", "wide"], ["model.width", "61", "127"], ["train.log_every", "7", "10"]]
    assert '<tr class="free"><td>train.log_every</td>' in text
    assert environment == [
        ["", "narrow", "wide"],
        ["versions.jax", "0.10.2", "0.11.0"],
        ["git_commit", "c" * 12, "d" * 12],
        ["devices", "1", "8"],
    ]
    axes = re.findall(r'<div class="by-(\w+)">', text)
    assert [axes.count(axis) for axis in ("step", "tokens", "seconds")] == [5, 5, 5]  # three known, tokens and seconds
    assert 'class="warning"' not in text and "src=" not in text and "<link" not in text


def test_the_switch_is_whole(make_run, written):
    text = written(make_run("a", rows(3.0)), make_run("b", rows(2.0)))
    assert len(re.findall("<input[^>]* checked>", text)) == 1
    for axis in ("step", "tokens", "seconds"):
        assert f'id="over-{axis}"' in text and f'<label for="over-{axis}">' in text
        assert f"#over-{axis}:not(:checked) ~ * .by-{axis} {{ display: none; }}" in text
    assert text.rindex("<input") < text.index('class="bar"') < text.index('class="curves"')  # as `~` needs it


def test_runs_of_other_tokens_are_warned_of(make_run, written, facts):
    other = {"data": facts["data"] | {"fingerprint": "b" * 64}}
    text = written(make_run("a", rows(3.0)), make_run("b", rows(2.0), {"data.tokenizer": "byte"}, other))
    assert '<p class="warning">The runs differ in their data or tokenizer' in text
    assert re.findall(r'class="best">(\d+\.\d+)<', text) == ["1.0000", "1.0000"]
    lossy = make_run("c", rows(2.0), {"data.tokenizer": "wordpiece:300"}, other)
    text = written(make_run("a", rows(3.0)), lossy)
    assert "nor do bits per byte" in text and not re.findall(r'class="best">(\d+\.\d+)<', text)


def test_many_runs_one_without_rows_one_without_facts_and_strange_names(make_run, written):
    folders = [make_run(f"run<{number}>", rows(3.0 + number)) for number in range(11)]
    folders += [make_run("no rows"), make_run("no facts", has_facts=False)]
    text = written(*folders)
    verdict, config, environment = (tables(text) + [None] * 2)[:3]
    assert [row[0] for row in verdict[1:]] == [f"run&lt;{number}&gt;" for number in range(11)] + ["no rows", "no facts"]
    assert verdict[-2][1:4] == ["finished", "7,919", "0"] and verdict[-1][1:4] == ["step 0 of 31", "–", "0"]
    assert config is None and environment is None  # nothing differs
    bar = text[text.index('class="bar"') :].partition("</div>")[0]
    assert len(set(re.findall(r"<path [^>]*>", bar))) == 13
    assert (
        len(re.findall(r"stroke-width: 1.3", text.partition('<div class="by-step">')[2].partition("</figure>")[0]))
        == 33
    )


def report(*arguments, folder):
    """Run `python -m lm.report`; return the finished process."""
    line = [sys.executable, "-m", "lm.report", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HOME": str(folder)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_the_command_compares_several_and_renews_the_page_of_one(make_run, tmp_path):
    first, second = make_run("x/narrow", rows(3.0)), make_run("x/wide", rows(2.0))
    done = report(
        "x/narrow", "--out=pages/both.html", "x/wide", first, folder=tmp_path
    )  # the first twice, and absolute
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[2].split()[:2] == ["narrow", "finished"] and lines[3].startswith("wide ") and "2.0000*" in lines[3]
    assert lines[-1] == "written: pages/both.html"
    assert "<h1>2 runs</h1>" in (tmp_path / "pages" / "both.html").read_text(encoding="utf-8")
    assert not (first / workdir.REPORT).exists()
    done = report("x/wide", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith(f"written: x/wide/{workdir.REPORT}\n")
    assert "2.0000" in done.stdout and "<h1>wide</h1>" in (second / workdir.REPORT).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name at least one DIR; see --help."),
        (["x/narrow", "x"], "'x' is not a workdir: it has no config.json; name the --workdir of a run."),
    ],
)
def test_the_command_refuses_what_is_no_run(make_run, tmp_path, arguments, sentence):
    make_run("x/narrow", rows(3.0))
    done = report(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {sentence}\n")
    assert not (tmp_path / "compare.html").exists()
