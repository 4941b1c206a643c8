"""Mirrors show what was written, go on where a run goes on, are refused when not installed, and never end a run."""

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from lm import metrics, mirrors, workdir
from lm.config import schema

ROOT = Path(__file__).parents[1]


def events(folder):
    """Return the events of a TensorBoard folder."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        start = 0
        while start < len(data):  # length, its checksum, event, its checksum
            (length,) = struct.unpack_from("<Q", data, start)
            yield Event.FromString(data[start + 12 : start + 12 + length])
            start += length + 16


def scalars(folder):
    """Return (step, name, value) of all scalars in a TensorBoard folder."""
    return [(event.step, value.tag, value.simple_value) for event in events(folder) for value in event.summary.value]


def test_rows_are_mirrored_to_tensorboard(tmp_path):
    writer = metrics.Writer(tmp_path, 0, ("tensorboard",))
    writer.write(3, {"train/loss": 7.5})
    writer.write(5, {"train/loss": 2.25, "tokens": 91})
    writer.close()
    assert scalars(tmp_path / workdir.TENSORBOARD) == [
        (3, "train/loss", 7.5),
        (5, "train/loss", 2.25),
        (5, "tokens", 91),
    ]


def test_a_resumed_run_takes_back_what_tensorboard_had_of_later_steps(tmp_path):
    metrics.Writer(tmp_path, 5, ("tensorboard",)).close()
    starts = [event.step for event in events(tmp_path / workdir.TENSORBOARD) if event.session_log.status]
    assert starts == [6]  # TensorBoard drops what it has from that step on


WRITE = """
import sys
from pathlib import Path
from lm import metrics
folder, start = Path(sys.argv[1]), int(sys.argv[2])
writer = metrics.Writer(folder, start, ("wandb",), lambda words: print("said:", words))
for step in range(start + 1, start + 4):
    writer.write(step, {"train/loss": 7.5 / step, "tokens": 91 * step})
    if step % 2:
        writer.write(step, {"valid/loss": 2.5 * step})
writer.close()
"""


def write_for_wandb(folder, start, **names):
    """Write three steps with the wandb mirror in a process of its own; return what it printed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)} | names
    line = [sys.executable, "-c", WRITE, str(folder / "run"), str(start)]
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout


def wandb_records(path):
    """Yield the records of an offline run's file: LevelDB's log format after 7 bytes of W&B's own."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, block = path.read_bytes(), 7, b"", 1 << 15
    while at < len(data):
        if block - at % block < 7:  # no room for a header
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)  # checksum, length; 1 whole, 2 first, 3 middle, 4 last
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def test_an_offline_run_of_wandb_holds_what_was_written_and_a_resumed_one_has_its_id(tmp_path):
    folder = tmp_path / "run"
    workdir.write(folder / workdir.CONFIG, json.dumps({"model.width": 61, "train.mirrors": ["wandb"]}))
    assert write_for_wandb(tmp_path, 0, WANDB_MODE="offline") == ""
    time.sleep(1.0)  # W&B names its folders by the second
    assert write_for_wandb(tmp_path, 2, WANDB_MODE="offline") == ""
    ids, rows = set(), []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        rows.append({})
        for record in wandb_records(path):
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert config["model.width"] == 61 and config["train.mirrors"] == ["wandb"]
                assert (record.run.project, record.run.display_name) == ("lm", "run")
            if record.WhichOneof("record_type") == "history":
                items = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                step = items.pop("_step")
                rows[-1][step] = {name: value for name, value in items.items() if not name.startswith("_")}
    assert len(ids) == 1
    expected = lambda step: (
        {"train/loss": 7.5 / step, "tokens": 91 * step} | ({"valid/loss": 2.5 * step} if step % 2 else {})
    )
    assert rows == [{step: expected(step) for step in steps} for steps in ((1, 2, 3), (3, 4, 5))]


def test_a_mirror_that_cannot_be_opened_is_said_once_and_the_rows_are_written(tmp_path):
    workdir.write(tmp_path / "run" / workdir.CONFIG, "{}")
    said = write_for_wandb(tmp_path, 0, WANDB_MODE="no-such-mode")
    assert re.fullmatch(r"said: train\.mirrors: wandb failed \(.*mode.*\); the run goes on without it\.\n", said)
    assert len(metrics.read(tmp_path / "run")) == 8


def test_a_mirror_that_breaks_later_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    class Breaking:
        def __init__(self, folder, step):
            self.steps = []

        def write(self, step, values):
            if step == 5:
                raise OSError("no space\nleft")

        def close(self):
            raise AssertionError("it is left out")

    monkeypatch.setitem(mirrors.MIRRORS, "wandb", Breaking)
    said = []
    writer = metrics.Writer(tmp_path, 0, ("wandb", "tensorboard"), said.append)
    for step in (3, 5, 7):
        writer.write(step, {"loss": float(step)})
    writer.close()
    assert said == ["train.mirrors: wandb failed (no space left); the run goes on without it."]
    assert [step for step, *_ in scalars(tmp_path / workdir.TENSORBOARD)] == [3, 5, 7]
    assert [row.step for row in metrics.read(tmp_path)] == [3, 5, 7]


def test_no_mirror_leaves_only_the_rows(tmp_path):
    writer = metrics.Writer(tmp_path, 0, ())
    writer.write(3, {"loss": 7.5})
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == [workdir.METRICS]


TRAIN = """
import runpy, sys
from lm import mirrors
mirrors.WeightsAndBiases.package = "no-such-package"
runpy.run_module("lm.train", run_name="__main__", alter_sys=True)
"""


def test_a_mirror_that_is_not_installed_is_refused_before_anything_is_made(tmp_path):
    mirrors.check(["tensorboard", "wandb"])
    flags = ["--config=configs/quickstart.py", f"--workdir={tmp_path}/run", "--config.train.mirrors=('wandb',)"]
    done = subprocess.run([sys.executable, "-c", TRAIN, *flags], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (2, "error: train.mirrors has 'wandb': pip install 'lm[wandb]'.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [("wandb", "wandb"), ("tensorbord",), ("tensorboard,wandb",)])
def test_names_that_are_no_mirrors_or_come_twice_are_refused(value):
    assert "any of tensorboard, wandb; none twice" in schema.complaint("train.mirrors", value)
