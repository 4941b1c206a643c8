"""Config files: JSON both ways, the text after the colon, and flags given to a real process."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.config import defaults, parse_arg
from lm.config.files import as_tuples, from_json, to_json
from lm.config.resolve import flatten, resolve
from lm.config.schema import FIELDS

ROOT = Path(__file__).parents[2]


def train(*arguments):
    """Run `python -m lm.train`; return the finished process and the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "lm.train", *arguments], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.profile_steps": (3, 7), "optimizer.no_decay": (), "schedule.peak": 0.1 + 0.2, "seed": 2**31 - 1},
        {"model.family": "llama", "data.source": 'files:/tmp/ä "b"\n*.txt', "train.sample_prompt": "\u2028\x00é"},
    ],
)
def test_json_gives_back_the_same_config_with_the_same_types(changes):
    config = defaults()
    config.update_from_flattened_dict(changes | {"train.steps": 17})
    for before in (config, resolve(config)):
        after = from_json(to_json(before))
        assert flatten(after) == flatten(before)
        assert [type(value) for value in flatten(after).values()] == [type(value) for value in flatten(before).values()]
        assert to_json(after) == to_json(before)


def test_json_of_an_older_schema_takes_defaults_for_what_has_come_since():
    config = from_json('{"train.steps": 17, "schedule.peak": 1, "train.epochs": null, "train.profile_steps": [3, 7]}')
    expected = flatten(defaults()) | {"train.steps": 17, "schedule.peak": 1.0, "train.profile_steps": (3, 7)}
    assert flatten(config) == expected
    assert type(config.schedule.peak) is float


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        (None, ("124m", 3, 0.5, False)),
        ("", ("124m", 3, 0.5, False)),
        ("355m", ("355m", 3, 0.5, False)),
        ("355m,7", ("355m", 7, 0.5, False)),
        ("355m,rate=1e-3,fast=true", ("355m", 3, 0.001, True)),
        ("layers=11,fast=False", ("124m", 11, 0.5, False)),
        ("fast=0", ("124m", 3, 0.5, False)),
    ],
)
def test_parse_arg_takes_declared_names_in_order_or_by_name(arg, expected):
    found = parse_arg(arg, size=("124m", "355m"), layers=3, rate=0.5, fast=False)
    assert (found.size, found.layers, found.rate, found.fast) == expected
    assert [type(found[name]) for name in ("size", "layers", "rate", "fast")] == [str, int, float, bool]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (("--config=configs/quickstart.py", "--config.model.hieght=3"), ("model.hieght", "did you mean")),
        (("--config=configs/quickstart.py", "--config.model.heads=3"), ("model.heads is 3", "model.width (128)")),
        (("--config=configs/quickstarts.py",), ("configs/quickstarts.py",)),
    ],
)
def test_a_bad_flag_ends_the_process_with_one_line_before_anything_is_made(tmp_path, flags, shown):
    folder = tmp_path / "run"
    begun = time.monotonic()
    done, cpu_seconds = train(*flags, f"--workdir={folder}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.endswith(".\n") and done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in shown)
    assert not folder.exists()
    assert cpu_seconds < 2 and time.monotonic() - begun < 6


def test_help_lists_every_field_with_its_meaning():
    done, _ = train("--help")
    assert done.returncode == 0 and done.stderr == ""
    for name, field in FIELDS.items():
        assert f"--config.{name}=" in done.stdout and field.meaning in done.stdout


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("User:", "('User:',)"),
        ("a, b", "('a, b',)"),
        ("12", "('12',)"),
        ("None", "('None',)"),
        ("it's\n", '("it\'s\\n",)'),
        ("a=b", "('a=b',)"),
        ("(", "('(',)"),
        ("('a', 'b')", "('a', 'b')"),
        ("['a']", "['a']"),
        ("'a'", "'a'"),
        ("()", "()"),
        ("1,2", "1,2"),
    ],
)
def test_a_lone_text_is_one_of_a_tuple(written, read):
    assert as_tuples([f"--sample.stop={written}"]) == [f"--sample.stop={read}"]
    assert as_tuples([f"--config.train.mirrors={written}"]) == [f"--config.train.mirrors={read}"]


def test_other_arguments_stay():
    line = ["lm.generate", "--prompt=(a", "--sample.top_k=3", "--sample.nothing=3", "--sample.stop", "-x=1", "a=b"]
    assert as_tuples(line) == line
