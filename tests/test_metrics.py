"""Rows are read as they were written, torn or repeated steps are dropped, and people see how far it is."""

import io
import math

import pytest

from lm import metrics, transfer, workdir
from lm.metrics import Row


def test_rows_are_read_as_written(tmp_path):
    writer = metrics.Writer(tmp_path, 0)
    writer.write(3, {"train/loss": 0.1 + 0.2, "tokens": 91})
    assert len(metrics.read(tmp_path)) == 2  # readers need not wait for the end
    writer.write(5, {"train/loss": math.nan})
    writer.close()
    *rows, last = metrics.read(tmp_path)
    assert rows == [Row(3, "train/loss", 0.1 + 0.2), Row(3, "tokens", 91)]
    assert last[:2] == (5, "train/loss") and math.isnan(last.value)


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert metrics.read(tmp_path) == []


@pytest.mark.parametrize("torn", [1, 2, 9, 17])
def test_a_torn_last_line_is_left_out_and_the_next_writer_begins_a_line(tmp_path, torn):
    path = tmp_path / workdir.METRICS
    whole = '{"step": 3, "loss": 7.5}\n'
    path.write_bytes((whole + '{"step": 5, "é": 2}'.encode()[:torn].decode(errors="ignore")).encode())
    assert metrics.read(tmp_path) == [Row(3, "loss", 7.5)]
    writer = metrics.Writer(tmp_path, 3)
    writer.write(5, {"loss": 2})
    writer.close()
    assert path.read_text() == whole + '{"step": 5, "loss": 2}\n'


def test_a_letter_torn_in_its_middle_is_left_out(tmp_path):
    path = tmp_path / workdir.METRICS
    path.write_bytes(b'{"step": 3, "loss": 7.5}\n{"step": 5, "\xc3')
    assert metrics.read(tmp_path) == [Row(3, "loss", 7.5)]


def test_a_resumed_writer_drops_the_rows_after_its_step(tmp_path):
    first = metrics.Writer(tmp_path, 0)
    for step in (3, 5, 7, 11):
        first.write(step, {"loss": float(step)})
    first.close()
    second = metrics.Writer(tmp_path, 5)
    assert [row.step for row in metrics.read(tmp_path)] == [3, 5]
    second.write(7, {"loss": -7.0})
    second.close()
    assert [(row.step, row.value) for row in metrics.read(tmp_path)] == [(3, 3), (5, 5), (7, -7)]


@pytest.mark.parametrize(
    ("tokens_per_second", "words"), [(7.4, "7 tokens/s"), (1234, "1.2k tokens/s"), (5_670_000, "5.67M tokens/s")]
)
def test_plain_lines_hold_loss_speed_and_time_left(monkeypatch, tokens_per_second, words):
    clock = iter([100.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    progress = metrics.Progress(3, 31, out)
    progress.show(7, 2.3456, tokens_per_second)  # 10 s for 4 steps: 24 more take 60 s
    assert out.getvalue() == f"step 7/31: loss 2.346, {words}, 1:00 left\n"


def test_plain_lines_come_at_most_every_five_seconds(monkeypatch):
    now = 100.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    out = io.StringIO()
    progress = metrics.Progress(0, 31, out)
    for step in range(1, 14):
        now += 1.0
        progress.show(step, 1.0, 1.0)
    progress.say("words in between")
    progress.close()
    lines = out.getvalue().splitlines()
    assert [line.partition("/")[0] for line in lines] == ["step 1", "step 6", "step 11", "words in between"]


def test_a_terminal_gets_a_bar_with_the_same_words():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    progress = metrics.Progress(3, 31, out)
    progress.show(7, 2.3456, 1234)
    progress.say("words in between")
    progress.close()
    assert "7/31" in out.getvalue() and "loss 2.346, 1.2k tokens/s" in out.getvalue()
    assert "words in between\n" in out.getvalue()


def losses(folder):
    """Return (step, value) of what a folder's readers see."""
    return [(row.step, row.value) for row in metrics.read(folder)]


def test_on_an_object_store_attempts_follow_each_other(far):
    """A writer that dies leaves what it had sent; the next goes on from an earlier step, and its rows are the ones."""
    first = metrics.Writer(far, 0)
    for step in (3, 5):
        first.write(step, {"loss": float(step)})
    assert losses(far) == []  # not sent yet
    first.sync()
    first.write(7, {"loss": 7.0})
    assert losses(far) == [(3, 3), (5, 5)]
    first.close()
    assert losses(far) == [(3, 3), (5, 5), (7, 7)]
    second = metrics.Writer(far, 5)  # and dies
    assert losses(far) == [(3, 3), (5, 5)]
    third = metrics.Writer(far, 3)
    third.write(5, {"loss": -5.0})
    third.close()
    assert losses(far) == [(3, 3), (5, -5)]
    del second


def test_parts_stay_small_and_are_sent_as_time_goes(far, monkeypatch):
    monkeypatch.setattr(metrics, "_PART_BYTES", 100)
    monkeypatch.setattr(metrics, "_PART_SECONDS", 0.0)
    writer = metrics.Writer(far, 0)
    for step in range(17):
        writer.write(step, {"loss": float(step)})
        assert losses(far) == [(number, number) for number in range(step + 1)]
    sizes = [len(part.read_bytes()) for part in (far / workdir.PARTS).glob("*")]
    assert len(sizes) > 3 and max(sizes) < 150
    writer.close()


def test_a_workdir_may_go_from_a_store_to_a_disk_and_back(far, tmp_path):
    writer = metrics.Writer(far, 0)
    writer.write(3, {"loss": 3.0})
    writer.write(5, {"loss": 5.0})
    writer.close()
    transfer.fetch(far, tmp_path / "run", lambda words: None)
    writer = metrics.Writer(tmp_path / "run", 3)
    writer.write(7, {"loss": 7.0})
    writer.close()
    assert losses(tmp_path / "run") == [(3, 3), (7, 7)] and not (tmp_path / "run" / workdir.PARTS).exists()
    transfer.send(tmp_path / "run", far / "again", lambda words: None)
    writer = metrics.Writer(far / "again", 3)
    writer.write(11, {"loss": 11.0})
    writer.close()
    assert losses(far / "again") == [(3, 3), (11, 11)]
