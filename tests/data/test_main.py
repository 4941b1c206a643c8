"""The data command as people use it."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    line = [sys.executable, "-m", "lm.data", "--config=configs/quickstart.py", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_shows_what_a_run_will_see(tmp_path):
    for name, count in (("en", 200), ("de", 150)):
        lines = (json.dumps({"text": f"{name} {number} " * (number % 13 + 1)}) for number in range(count))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    mixture = f"('files:{tmp_path}/en.jsonl=2', 'files:{tmp_path}/de.jsonl=1')"
    done = run(
        f"--config.data.mixture={mixture}",
        "--config.data.tokenizer=byte",
        f"--config.data.store={tmp_path}/store",
        "--config.data.packing=first_fit",
        "--config.train.steps=30",
        "--prepare",
        "--rows=3",
        "--tokens=99",
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for name, count, share, samples in (("en", 200, "66.67%", 2), ("de", 150, "33.33%", 1)):
        part = said.partition(f"files:{tmp_path}/{name}.jsonl: {share} of the samples, ")[2].partition("\n\n")[0]
        assert re.match(r"[\d.]+ epochs\n", part)
        records = [int(found) for found in re.findall(r"(\d+) records, [\d.]+ MB, [\d,]+ tokens, 0\.9\d bytes", part)]
        assert len(records) == 2 and sum(records) == count
        assert re.search(r"\d+ to train on, 9\d\.\d\d% filled", part)
        assert len(re.findall(rf"row \d of files:{tmp_path}/{name}.jsonl, records 1 to \d+:", said)) == samples
    assert "|'<|endoftext|>' → 'e'|" in said and "|' ' → '<|endoftext|>'|" in said


def test_the_command_shows_pairs(tmp_path):
    rows = (json.dumps({"in": f"{number} " * (number % 13 + 1), "out": number}) for number in range(200))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    done = run(
        f"--config.data.source=files:{tmp_path}/a.jsonl",
        "--config.data.text_field=in",
        "--config.data.target_field=out",
        "--config.objective.name=seq2seq",
        "--config.data.tokenizer=byte",
        f"--config.data.store={tmp_path}/store",
        "--config.train.steps=30",
        "--tokens=256",
    )
    assert done.returncode == 0, done.stderr
    records = [int(found) for found in re.findall(r"(\d+) records, 0\.\d\d MB, [\d,]+ tokens, 0\.\d\d by", done.stdout)]
    assert len(records) == 2 and sum(records) == 200 and f"run          30 steps, {30 * 16} rows" in done.stdout
    assert f"{30 * 16 / records[0]:.2f} epochs" in done.stdout
    lengths = r"(input|target)\s+up to (\d+) tokens in half of the pairs, (\d+) in 99 of 100, (\d+) in all"
    assert [found[0] for found in re.findall(lengths, done.stdout)] == ["input", "target"]
    rows = re.findall(r"row \d of \S+, records 1 to 1: .*\n\|'(\d)' → '.' ×\| .*\|'\s' → '\1'\|", done.stdout)
    assert len(rows) == 2


def test_the_command_shows_what_an_encoder_reads(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh" * 200)
    done = run(
        f"--config.data.source=files:{tmp_path}/a.txt",
        "--config.data.tokenizer=byte",
        f"--config.data.store={tmp_path}/store",
        "--config.objective.name=span",
        "--config.model.architecture=encoder_decoder",
        "--rows=1",
        "--tokens=99",
    )
    assert done.returncode == 0, done.stderr
    read, _, written = done.stdout.partition("the encoder reads: ")[2].partition("\n")
    assert "|'a'| |'b'|" in read and "|'<extra_id_0>'|" in read and "→" not in read
    assert "|'<|endoftext|>' → '<extra_id_0>'|" in written


def test_the_command_shows_classes(tmp_path):
    rows = (json.dumps({"text": f"{number}", "target": "odd" if number % 2 else "even"}) for number in range(200))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    done = run(
        f"--config.data.source=files:{tmp_path}/a.jsonl",
        "--config.objective.name=classify",
        "--config.objective.labels=('even', 'odd')",
        "--config.model.architecture=encoder",
        "--config.data.tokenizer=byte",
        f"--config.data.store={tmp_path}/store",
        "--config.train.steps=30",
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"\|'<\|endoftext\|>' → '(\w+)'\| .*'(\d)' →  ×\| \|'<\|endoftext\|>' →  ×\|", done.stdout)
    assert [label == ("odd" if int(digit) % 2 else "even") for label, digit in found] == [True, True]
