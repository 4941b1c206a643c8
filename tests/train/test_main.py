"""The train command as people use it: real processes, real signals, real kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lm import checkpoint, lock, metrics, workdir
from lm.weights.place import open_place

ROOT = Path(__file__).parents[2]
STEPS = 240
TIMES = {"tokens_per_second", "seconds", "mfu"}
TINY = {
    "data.tokenizer": "char", "data.batch_size": 4, "model.width": 24, "model.layers": 2, "model.heads": 3,
    "model.context": 17, "model.dropout": 0.1, "train.accumulate": 2, "train.steps": STEPS, "train.log_every": 1,
    "train.checkpoint_every": 20, "train.evaluate_every": 60, "train.sample_every": 120, "schedule.warmup_steps": 10,
    "sample.max_new_tokens": 20,
}  # fmt: skip
SHORT = {"train__steps": 60, "train__evaluate_every": 20, "train__sample_every": -1, "train__profile_steps": "(3, 5)"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with a text, and with the stores that all runs here share."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(3)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
    lines = (" ".join(draw.choices(words, k=9)) + "." for _ in range(500))
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def command(corpus, folder, *, module="lm.train", **overrides):
    """Return the command line of a tiny run."""
    values = TINY | {"data.source": f"files:{corpus}/text.txt", "data.store": str(corpus / "store")}
    values |= {name.replace("__", "."): value for name, value in overrides.items()}
    line = [sys.executable, "-m", module, f"--config={corpus}/config.py", f"--workdir={folder}"]
    (corpus / "config.py").write_text("from lm.config import defaults as get_config\n", encoding="utf-8")
    return line + [f"--config.{name}={value}" for name, value in values.items()]


def train(corpus, folder, **overrides):
    """Run to the end; return the finished process."""
    line = command(corpus, folder, **overrides)
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)


def start(corpus, folder, until, **overrides):
    """Start a run and return its process once a checkpoint of step `until` or later is safe."""
    line = command(corpus, folder, **overrides)
    with open(corpus / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(line, cwd=ROOT, stderr=log)
    limit = time.monotonic() + 200
    while not any(step >= until for step in checkpoint.steps(folder / workdir.CHECKPOINTS)):
        assert process.poll() is None and time.monotonic() < limit, (corpus / "log.txt").read_text()
        time.sleep(0.005)
    return process


def tree(folder, step):
    """Return every array of a checkpoint's params and opt_state as Orbax reads them back."""
    import orbax.checkpoint as ocp

    leaves = []
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("params", "opt_state"):
            leaves += jax.tree.leaves(checkpointer.restore(folder / workdir.CHECKPOINTS / str(step) / item))
    return [np.asarray(leaf) for leaf in leaves]


def numbers(folder):
    """Return the rows of a run that a clock does not enter."""
    return [row for row in metrics.read(folder) if row.name not in TIMES]


def contents(folder):
    """Return path → bytes of all files."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def straight(corpus):
    """Return the workdir of a run that nothing disturbed."""
    folder = corpus / "straight"
    done = train(corpus, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_what_the_design_says(straight):
    for name in (
        workdir.CONFIG,
        workdir.RUN,
        workdir.METRICS,
        workdir.SAMPLES,
        workdir.REPORT,
        "tokenizer/tokenizer.json",
    ):
        assert (straight / name).stat().st_size > 0, name
    assert not (straight / workdir.LOCK).exists()
    facts = json.loads((straight / workdir.RUN).read_text())
    assert facts["finished"] is True and facts["parameters"] > 0 and len(facts["data"]["fingerprint"]) == 64
    rows = metrics.read(straight)
    assert [row.step for row in rows if row.name == "train/loss"] == list(range(1, STEPS + 1))
    assert [row.step for row in rows if row.name == "valid/loss"] == [60, 120, 180, 240]
    losses = {row.step: row.value for row in rows if row.name == "valid/loss"}
    assert losses[240] < losses[60] < 3.2
    kept = checkpoint.steps(straight / workdir.CHECKPOINTS)
    assert kept[-2:] == [220, 240] and all(not checkpoint.damage(straight / workdir.CHECKPOINTS / str(s)) for s in kept)
    samples = (straight / workdir.SAMPLES).read_text(encoding="utf-8")
    assert samples.count("──── step") == 2


def test_the_report_stands_alone(straight):
    page = (straight / workdir.REPORT).read_text(encoding="utf-8")
    first, more = page.split("more curves")
    # and the baseline of accuracy, perplexity, seconds, skipped, tokens
    assert first.count("<svg") == 6 and more.count("<svg") == 5
    assert "src=" not in page and "<link" not in page and "http://localhost" not in page
    facts = json.loads((straight / workdir.RUN).read_text())
    valid = facts["data"]["valid"]
    assert f"{8 * valid['xz_bytes'] / valid['bytes']:.4f}" in page
    last = [row for row in metrics.read(straight) if row.name == "valid/loss"][-1]
    assert f"{last.value:.4f}" in page


def test_killed_and_then_terminated_is_the_same_run(corpus, straight):
    """A killed run goes on after its newest checkpoint; a terminated one saves its last step first."""
    folder = corpus / "killed"
    process = start(corpus, folder, 20)
    time.sleep(random.Random(20).random() * 0.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = checkpoint.steps(folder / workdir.CHECKPOINTS)[-1]
    assert killed < STEPS
    process = start(corpus, folder, killed + 20)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(timeout=60) == 143
    assert time.monotonic() - begun < 20
    last = checkpoint.steps(folder / workdir.CHECKPOINTS)[-1]
    assert last == numbers(folder)[-1].step and killed + 20 <= last < STEPS
    assert json.loads((folder / workdir.RUN).read_text())["finished"] is False
    done = train(corpus, folder)
    assert done.returncode == 0, done.stderr
    assert f"resuming after step {last}" in done.stderr
    assert numbers(folder) == numbers(straight)
    ours, theirs = tree(folder, STEPS), tree(straight, STEPS)
    assert len(ours) > 20 and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for name in (workdir.SAMPLES, workdir.CONFIG):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def test_a_flipped_bit_is_noticed_and_a_longer_run_goes_on(corpus, straight):
    folder = corpus / "flipped"
    shutil.copytree(straight, folder)
    newest = folder / workdir.CHECKPOINTS / str(STEPS)
    largest = max(
        (path for path in (newest / "params").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(bytes(data))
    done = train(corpus, folder, train__steps=STEPS + 20)
    assert done.returncode == 0, done.stderr
    assert f"{largest} has changed since it was written" in done.stderr
    assert f"resuming after step {STEPS - 20}" in done.stderr and "the cosine schedule moves" in done.stderr
    steps = [row.step for row in numbers(folder) if row.name == "train/loss"]
    assert steps == list(range(1, STEPS + 21))


def test_with_every_checkpoint_damaged_nothing_starts_again(corpus, straight):
    folder = corpus / "ruined"
    shutil.copytree(straight, folder)
    for path in (folder / workdir.CHECKPOINTS).glob(f"*/{checkpoint.MANIFEST}"):
        path.write_text(path.read_text().replace('"step": ', '"step": 1'))
    for _ in range(2):
        done = train(corpus, folder, train__steps=STEPS + 20)
        assert done.returncode == 2 and "every checkpoint in" in done.stderr


REFUSALS = [
    ({"schedule__peak": 2e-3}, "schedule.peak: 0.001 → 0.002"),
    ({"seed": 1}, "seed: 0 → 1"),
    (
        {"data__source": "embedded:code", "data__mixture": "('embedded:prose=1',)"},
        "data.mixture: () → ('embedded:prose=1',)",
    ),
    ({"train__steps": STEPS - 100}, f"is at step {STEPS} already"),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSALS)
def test_a_workdir_of_another_run_is_left_alone(corpus, straight, overrides, words):
    before = contents(straight)
    done = train(corpus, straight, **overrides)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1]
    assert contents(straight) == before


def test_other_data_under_the_same_name_is_refused(corpus, straight):
    folder = corpus / "moved"
    shutil.copytree(straight, folder)
    path = corpus / "text.txt"
    text, stamp = path.read_text(), path.stat()
    try:
        path.write_text(text.translate(str.maketrans("ab", "ba")))
        done = train(corpus, folder)
    finally:
        path.write_text(text)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert done.returncode == 2 and "was trained on other data" in done.stderr.splitlines()[-1]


BAD_INPUT = [
    ("missing.txt", None, "char", "matches no file"),
    ("empty.txt", b"", "char", "empty.txt is empty"),
    ("latin.txt", b"ol\xe9" * 99, "char", "latin.txt, line 1: byte 2 is not UTF-8"),
    ("torn.jsonl", b'{"text": "a"}\n{"text": ', "char", "torn.jsonl, line 2 is not JSON"),
    ("fine.txt", b"words " * 999, "wordpiece", "data.tokenizer is 'wordpiece': it must be byte, char, bpe:SIZE"),
    ("short.txt", b"words " * 2, "char", "it must have more than 17, as a window takes; lower model.context."),
]


@pytest.mark.parametrize(("name", "data", "tokenizer", "words"), BAD_INPUT, ids=[case[0] for case in BAD_INPUT])
def test_bad_input_is_one_sentence(corpus, tmp_path, name, data, tokenizer, words):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    folder = tmp_path / "run"
    done = train(corpus, folder, data__source=f"files:{tmp_path}/{name}", data__tokenizer=tokenizer)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and last.endswith(".") and words in last
    assert "Traceback" not in done.stderr
    assert not folder.exists() or not contents(folder)


def test_a_folder_that_is_no_run_and_a_busy_one_are_refused(corpus, straight, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    done = train(corpus, tmp_path)
    assert done.returncode == 2 and "holds files, but no run" in done.stderr
    assert contents(tmp_path) == {Path("thesis.txt"): b"precious"}
    with lock.held(straight / workdir.LOCK, "it", print):
        done = train(corpus, straight)
    assert done.returncode == 2 and f"is in use by process {os.getpid()}" in done.stderr


def test_steps_that_are_not_finite_stop_the_run(corpus):
    folder = corpus / "exploded"
    done = train(corpus, folder, schedule__peak=1e30, optimizer__clip=0.0, schedule__warmup_steps=0)
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1]
    assert "5 steps in a row" in sentence and ("the loss" in sentence or "the gradient of" in sentence)


@pytest.fixture(scope="module")
def mixed(corpus):
    """Return the workdir of a short run of two sources that wrote a profile, and its mixture."""
    draw = random.Random(5)
    (corpus / "vowels.txt").write_text("".join(draw.choices("aei ", k=1999)), encoding="utf-8")
    folder = corpus / "mixed"
    mixture = f"('files:{corpus}/text.txt=3', 'files:{corpus}/vowels.txt=1')"
    done = train(
        corpus,
        folder,
        data__source="embedded:code",
        data__mixture=mixture,
        data__packing="first_fit",
        **SHORT,
    )
    assert done.returncode == 0, done.stderr
    return folder, mixture


def test_every_source_of_a_mixture_is_validated(corpus, mixed):
    folder, mixture = mixed
    names = [f"files:{corpus}/{name}.txt" for name in ("text", "vowels")]
    assert not (folder / workdir.SAMPLES).exists()
    rows = {(row.step, row.name): row.value for row in numbers(folder)}
    data = json.loads((folder / workdir.RUN).read_text())["data"]
    assert [(part["source"], part["share"]) for part in data["parts"]] == [(names[0], 0.75), (names[1], 0.25)]
    assert data["source"] == f"{names[0]}=3, {names[1]}=1"
    assert data["train"]["tokens"] == sum(part["train"]["tokens"] for part in data["parts"])
    scored = [part["valid"]["tokens"] - 1 for part in data["parts"]]
    held_out = np.array([part["valid"]["bytes"] for part in data["parts"]])
    for step in (20, 40, 60):
        losses = [rows[step, f"valid/{name}/loss"] for name in names]
        assert losses[0] != losses[1]
        assert np.isclose(rows[step, "valid/loss"], np.average(losses, weights=scored), rtol=1e-6)
        bits = [rows[step, f"valid/{name}/bits_per_byte"] for name in names]
        assert np.allclose(bits, np.array(losses) * scored / np.log(2) / held_out)
    assert rows[60, f"valid/{names[1]}/loss"] < rows[20, f"valid/{names[1]}/loss"]
    other = mixture.replace("=3", "=2")
    done = train(corpus, folder, data__source="embedded:code", data__mixture=other, data__packing="first_fit", **SHORT)
    assert done.returncode == 2 and f"data.mixture: ('{names[0]}=3', " in done.stderr.splitlines()[-1]


def test_a_profile_is_written(mixed):
    folder, _ = mixed
    assert list((folder / workdir.PROFILE).rglob("*.xplane.pb"))


def test_generate_speaks_only_the_text(corpus, straight):
    def generate(*flags):
        line = [sys.executable, "-m", "lm.generate", f"--from={straight}", "--sample.max_new_tokens=30", *flags]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)

    done = generate("--prompt=ab")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ab") and done.stdout.endswith("\n") and len(done.stdout) > 20
    assert generate("--prompt=ab").stdout == done.stdout
    several = generate("--prompt=ab", "--json", "--sample.sequences=3", "--sample.top_p=0.9")
    found = [json.loads(line) for line in several.stdout.splitlines()]
    assert len(found) == 3 and len({one["text"] for one in found}) > 1
    for one in found:
        assert len(one["tokens"]) == len(one["logprobs"]) and one["finish_reason"] in ("stop", "length")
    for flags, words in (
        (["--sample.temperature=-1"], "sample.temperature is -1.0: it must be at least 0"),
        (["--sample.top_p=1.5"], "sample.top_p is 1.5"),
        (
            ["--prompt=" + "ab" * 40],
            "the prompt has 80 tokens: it must have at most 16, since the model's context is 17",
        ),
        (["--from=/nowhere"], "is not a PLACE"),
        ([f"--from={straight}@7"], "has no checkpoint of step 7"),
        (["--sample.topp=1"], "did you mean 'sample.top_p'?"),
    ):
        done = generate(*flags)
        assert done.returncode == 2 and words in done.stderr and done.stdout == "", flags


def test_a_run_on_an_object_store_killed_and_moved_is_the_same_run(corpus, straight, far, monkeypatch):
    """Killed by SIGKILL, it goes on on another machine, which has no copy of the token store yet."""
    folder, elsewhere = far / "run", {"data.store": str(far / "store"), "train.checkpoint_every": 60}
    monkeypatch.setenv("HOME", str(corpus / "one machine"))
    process = start(corpus, folder, 60, **elsewhere)
    process.kill()
    process.wait()
    assert (folder / workdir.LOCK).exists()
    monkeypatch.setenv("HOME", str(corpus / "another"))
    done = train(corpus, folder, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stderr and "fetching gs://" in done.stderr and "tokenising" not in done.stderr
    assert not (folder / workdir.LOCK).exists()
    assert numbers(folder) == numbers(straight)
    assert (folder / workdir.SAMPLES).read_text() == (straight / workdir.SAMPLES).read_text()
    assert json.loads((folder / workdir.RUN).read_text())["finished"] is True
    page = (folder / workdir.REPORT).read_text()
    assert page.count("<svg") == (straight / workdir.REPORT).read_text(encoding="utf-8").count("<svg")
    near, there = open_place(str(straight)), open_place(f"{folder}@{STEPS}")
    jax.tree.map(np.testing.assert_array_equal, near.params, there.params)
    assert there.tokenizer.to_json() == near.tokenizer.to_json()
