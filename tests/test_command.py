"""Every command, in a process of its own: its help tells all that it takes, at once; a mistake is one sentence."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.config.schema import FIELDS

ROOT = Path(__file__).parents[1]
DOORS = sorted(path.parent.name for path in (ROOT / "lm").glob("*/__main__.py"))
FIELDS_OF = {  # the fields that a door takes, by the beginning of their names, and how it spells them
    "train": ("config.", ("",)),
    "data": ("config.", ("data.", "model.context", "seed")),
    "generate": ("", ("sample.",)),
    "evaluate": ("", ("data.",)),
}


def call(door, *arguments, **options):
    """Run `python -m lm.DOOR`; return the finished process."""
    line = [sys.executable, "-m", f"lm.{door}", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("door", DOORS)
def test_help_says_what_it_does_with_an_example_and_lists_what_it_takes(door):
    begun = time.monotonic()
    done = call(door, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert time.monotonic() - begun < 3
    text = done.stdout
    assert re.match(r"[A-Z].+[.:]?\n", text) and f"\n    python -m lm.{door}" in text
    source = (ROOT / "lm" / door / "__main__.py").read_text(encoding="utf-8")
    for flag in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source) + ["config"] * ("define_config" in source):
        assert f"\n  --{flag}: " in text
    prefix, sections = FIELDS_OF.get(door, ("config.", ()))
    taken = [name for name in FIELDS if name.startswith(sections)]
    assert re.findall(r"\n  --([\w.]+)=", text) == [prefix + name for name in taken]
    for name in taken:
        field = FIELDS[name]
        entry = text.partition(f"\n  --{prefix}{name}=")[2].partition("\n  --")[0]
        assert field.meaning in entry and field.rule.words in entry and field.type.__name__ in entry
        for choice, meaning in field.rule.choices.items():
            assert f"\n        {choice}: {meaning}" in entry


@pytest.mark.parametrize(
    ("door", "arguments", "sentence"),
    [
        ("config", ["data"], "'data' is not a flag; see --help."),
        ("train", ["runs/a", "--workdir=a", "--config=configs/llama.py"], "'runs/a' is not a flag; see --help."),
        ("train", ["--workdirs=a"], "there is no flag --workdirs (did you mean 'workdir'?); see --help."),
        ("train", ["--config=configs/gpt2.py:124m"], "the flag --workdir must be given; see --help."),
        ("data", ["--workdir=a"], "there is no flag --workdir; see --help."),
        ("evaluate", ["--data.sauce=3"], "there is no config field 'data.sauce' (did you mean 'data.source'?)."),
        (
            "weights",
            ["--from=runs/a", "--to=b", "--dtype=int8"],
            "b is not written as int8: it must be one of float32, bfloat16.",
        ),
        ("weights", ["--from=runs/a", "--to=."], ". is there already; name another."),
        (
            "weights",
            ["--from=runs/a", "--to=b.safetensors"],
            "b.safetensors is no PLACE to write: name a folder, or a file that ends in .gguf.",
        ),
        ("generate", ["--sample.seeds=3"], "there is no config field 'sample.seeds' (did you mean 'sample.seed'?)."),
    ],
)
def test_a_mistake_is_one_sentence(door, arguments, sentence):
    done = call(door, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {sentence}\n")
