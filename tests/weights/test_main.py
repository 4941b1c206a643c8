"""Published weights as people use them: measured, trained on, also with the folder gone, published again; processes."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]


def run(module, *arguments, code=0):
    """Run a command; return its standard output and its error output."""
    line = [sys.executable, "-m", f"lm.{module}", *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_published_model_is_measured_trained_on_and_published(golden, tmp_path, tokenizer_json):
    draw = random.Random(5)
    lines = ("".join(draw.choices("ABCDEFGHabcdefgh", k=40)) for _ in range(200))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    theirs = golden("llama").write(tmp_path / "theirs")
    (theirs / "tokenizer.json").write_text(tokenizer_json)

    text = [f"data.source=files:{tmp_path}/*.txt", f"data.store={tmp_path}/store"]
    out, _ = run("evaluate", f"--from={theirs}", *(f"--{one}" for one in text), "--data.batch_size=8", "--json")
    measured = json.loads(out)
    assert measured["context"] == 59 and measured["bits_per_byte"] > 1

    folder = tmp_path / "run"
    train = [
        f"--config=configs/finetune.py:{theirs}",
        f"--workdir={folder}",
        *(f"--config.{one}" for one in text),
    ]
    train += ["--config.train.sample_every=0", "--config.sample.max_new_tokens=1", "--config.schedule.peak=1e-3"]
    train += ["--config.schedule.warmup_steps=0"]
    run("train", *train, "--config.train.steps=2")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 0 and [row["step"] for row in rows].count(0) == 1
    np.testing.assert_allclose(rows[0]["valid/loss"], measured["loss"], rtol=1e-6)
    assert rows[-1]["valid/loss"] < rows[0]["valid/loss"]

    theirs.rename(tmp_path / "gone")
    run("train", *train, "--config.train.steps=3")
    out, _ = run("weights", f"--from={folder}", f"--to={tmp_path / 'again'}", "--dtype=bfloat16")
    assert out == f"{tmp_path / 'again'}: llama, bfloat16\n"
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("gone", "again"))
    assert {name: array.shape for name, array in old.items()} == {name: array.shape for name, array in new.items()}
    assert {array.dtype.name for array in new.values()} == {"bfloat16"}
    assert (tmp_path / "again" / "tokenizer.json").read_text() == tokenizer_json
    old, new = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("gone", "again"))
    assert {name: new[name] for name in old if name in new} == {name: old[name] for name in old if name in new} | {
        "dtype": "bfloat16"
    }
