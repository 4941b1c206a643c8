"""What reports read of a workdir: whole or torn, finished or not yet begun."""

import math
from pathlib import Path

import pytest

from lm import workdir
from lm.refusal import Refusal
from lm.report import record


def test_a_record_has_every_metric_s_finite_values_by_step(make_run):
    rows = [
        (3, {"train/loss": 7.5, "seconds": 2.0, "tokens": 300}),
        (5, {"train/loss": math.nan, "seconds": 4.0, "tokens": 500}),
        (7, {"train/loss": 2.5, "valid/wiki/loss": math.inf}),
    ]
    run = record.read(make_run("a", rows))
    assert run.series["train/loss"] == ([3, 7], [7.5, 2.5]) and run.series["valid/wiki/loss"] == ([], [])
    assert run.step == 7 and run.config["train.steps"] == 31 and run.facts["parameters"] == 7919
    assert record.last(run, "train/loss") == 2.5 and record.last(run, "valid/wiki/loss") is None
    assert record.least(run, "train/loss") == 2.5 and record.least(run, "valid/loss") is None
    assert record.speed(run) == 125.0


def test_a_run_that_is_going_on_is_read_up_to_its_last_whole_line(make_run):
    folder = make_run("a", [(3, {"train/loss": 7.5})], facts={"finished": False})
    with open(folder / workdir.METRICS, "a", encoding="utf-8") as file:
        file.write('{"step": 5, "train/lo')
    run = record.read(folder)
    assert run.step == 3 and record.state(run) == "step 3 of 31"


def test_a_run_without_rows_or_facts_is_read(make_run):
    run = record.read(make_run("a", has_facts=False))
    assert (run.step, run.facts, run.series) == (0, {}, {})
    assert record.state(run) == "step 0 of 31" and record.speed(run) is None
    assert record.state(record.read(make_run("b"))) == "finished"


def test_values_lie_over_the_tokens_and_seconds_between_two_rows_of_the_log(make_run):
    log = [(4, {"tokens": 400, "seconds": 10.0}), (8, {"tokens": 800, "seconds": 12.0})]
    rows = [(2, {"valid/loss": 5.0}), log[0], (5, {"valid/loss": 3.0}), log[1], (9, {"valid/loss": 2.0})]
    run = record.read(make_run("a", rows))
    assert record.along(run, "valid/loss", "step") == ([2, 5, 9], [5.0, 3.0, 2.0])
    assert record.along(run, "valid/loss", "tokens") == ([200.0, 500.0], [5.0, 3.0])  # step 9 has none yet
    assert record.along(run, "valid/loss", "seconds") == ([5.0, 10.5], [5.0, 3.0])
    assert record.along(run, "train/loss", "seconds") == ([], [])
    assert record.along(run, "tokens", "tokens") == ([400.0, 800.0], [400.0, 800.0])


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["runs/a"], ["a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/a/seed0", "runs/b/seed0"], ["a", "b"]),
        (["runs/a/seed0", "runs/a/seed1", "runs/b/seed0"], ["a/seed0", "a/seed1", "b/seed0"]),
        (["runs/a", "runs/a/b"], ["a", "a/b"]),
        (["x/a/a", "x/a"], ["a/a", "a"]),
        (["x/run", "y/z/run"], ["x", "y/z"]),
    ],
)
def test_names_are_what_differs_and_unique(folders, expected):
    assert record.names([Path("/home/me") / folder for folder in folders]) == expected


def test_what_is_no_workdir_or_torn_is_refused(make_run, tmp_path):
    with pytest.raises(Refusal, match="is not a workdir: it has no config"):
        record.read(tmp_path)
    folder = make_run("a")
    (folder / workdir.RUN).write_text('{"finished": tr')
    with pytest.raises(Refusal, match="is not JSON"):
        record.read(folder)
