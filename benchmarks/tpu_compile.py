"""What programs of training and of generation take on TPU slices: compiled by libtpu, where there is no TPU.

    python benchmarks/tpu_compile.py [--only=NAME,...] [--write]

Each config's train step and decode step are compiled in a process of their own. Prints a Markdown table: the most
memory of a device that is held at once, whether it fits, collectives, seconds of compiling; --write puts it into
docs/tpu.md, where rows of configs that were not compiled stay. It needs libtpu: pip install 'lm[tpu]'.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from lm import workdir
from lm.config.objective import has_prefix
from lm.config.resolve import resolve
from lm.costs.compiled import Collective, compiled
from lm.model import kernels
from lm.parallel import topology
from lm.parallel.mesh import make_mesh
from lm.plan import programs
from lm.refusal import Refusal

ONLY = flags.DEFINE_list("only", [], "names of configs, all of them where none is given")
WRITE = flags.DEFINE_boolean("write", False, "put the table into docs/tpu.md")
HERE = flags.DEFINE_string("here", "", "compile this one in this process and print its rows as JSON")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tpu.md"
BEGIN, END = "<!-- make tpu-compile: begin -->", "<!-- make tpu-compile: end -->"
HEAD = ("config", "devices", "mesh", "program", "peak GiB", "fits", "collectives", "seconds")


class Case(NamedTuple):
    """What is compiled. config: FILE:argument in configs. fields: set in it. rows: texts that are decoded at once."""

    config: str
    topology: str
    fields: dict[str, Any]
    rows: int
    slices: int = 1


CASES = {
    "gpt2-124m": Case("gpt2:124m", "v5e:2x4", {}, rows=64),
    "t5-base": Case("t5:base", "v5e:2x4", {"parallel.mesh.fsdp": 8}, rows=64),
    "two-slices": Case("llama:1.1b", "v5e:2x4", {"parallel.mesh.slice": 2, "parallel.mesh.fsdp": 8}, rows=64, slices=2),
    "llama-8b-v5p": Case(
        "llama:8b",
        "v5p:2x2x4",
        {"train.accumulate": 64, "parallel.mesh.fsdp": 8, "parallel.mesh.tensor": 2},
        rows=64,
    ),
    "llama-8b-v6e": Case(
        "llama:8b",
        "v6e:4x4",
        {"train.accumulate": 128, "parallel.mesh.fsdp": 4, "parallel.mesh.tensor": 4},
        rows=64,
    ),
    "llama-8b-v5e": Case(  # on which it has no room
        "llama:8b", "v5e:2x4", {"train.accumulate": 64, "parallel.mesh.fsdp": 4, "parallel.mesh.tensor": 2}, rows=64
    ),
    "mixtral-8x7b": Case(
        "published:mixtral,8x7b",
        "v5p:2x4x4",
        {
            "model.context": 4096,
            "model.dispatch": "capacity",
            "data.batch_size": 512,
            "parallel.mesh.fsdp": 4,
            "parallel.mesh.expert": 8,
        },
        rows=64,
    ),
}


def main(arguments: list[str]) -> None:
    """Compile, print the table and write it."""
    try:
        if arguments[1:]:
            raise Refusal(f"{arguments[1]!r} is not a flag; see --help.")
        for name in [*ONLY.value, *filter(None, [HERE.value])]:
            if name not in CASES:
                raise Refusal(f"there is no config {name!r} here; there are {', '.join(CASES)}.")
        if HERE.value:
            print(json.dumps(list(_compiled(CASES[HERE.value]))))
            return
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(2)
    lines = {}
    for name in ONLY.value or CASES:
        lines[name] = _lines(name)
        if WRITE.value:  # one after another, since all together take long
            _write(lines)
    print("\n".join(_table(lines)))
    sys.exit(any("failed" in line for name in lines for line in lines[name]))


def _compiled(case: Case) -> Iterator[dict[str, Any]]:
    """Yield what each program of a case takes, as a row of the table; compiles in this process."""
    devices = topology.devices(case.topology, case.slices)
    file, _, argument = case.config.partition(":")
    config = runpy.run_path(str(ROOT / f"configs/{file}.py"))["get_config"](argument)
    config.update_from_flattened_dict(case.fields)
    config = resolve(config)
    mesh = make_mesh(config.parallel.mesh, config.data.batch_size, config.train.accumulate, devices)
    kernel = kernels.chosen(config.parallel.attention, config.model, has_prefix(config), devices[0])
    shape = " × ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    micro = config.data.batch_size // config.train.accumulate
    for program, lower in (
        (f"train, {kernel}, {config.train.accumulate} × {micro} rows of {config.model.context}", programs.train_step),
        (f"decode, {case.rows} rows of {config.model.context}", partial(programs.decode_step, rows=case.rows)),
    ):
        print(f"  {program}: compiling", file=sys.stderr, end="", flush=True)
        row = {"mesh": shape, "program": program}
        try:
            found = compiled(lower(config, mesh))
            row |= found._asdict() | {"collectives": _words(found.collectives)}
        except Refusal as refusal:
            row["refusal"] = str(refusal)
        print(f", {row.get('seconds', 0):.0f} s", file=sys.stderr, flush=True)
        yield row


def _lines(name: str) -> list[str]:
    """Return the table's lines of a config, compiled in a process of its own."""
    case = CASES[name]
    devices = f"{case.slices} × {case.topology}" if case.slices > 1 else case.topology
    print(f"{name} for {devices}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, f"--here={name}"],
        env=os.environ | topology.ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode == 2:
        sys.exit(2)
    print(f"  done after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        return [_line(name, devices, "", "", "", f"failed, status {done.returncode}", "", "")]
    return [_cells(name, devices, row) for row in json.loads(done.stdout.splitlines()[-1])]


def _cells(name: str, devices: str, row: dict[str, Any]) -> str:
    """Return the table's line of a program."""
    first = name, devices, row["mesh"], row["program"]
    if "refusal" in row:
        return _line(*first, "", f"no: {row['refusal']}", "", "")
    return _line(*first, f"{row['peak'] / 2**30:.2f}", "yes", row["collectives"], f"{row['seconds']:.0f}")


def _words(collectives: dict[str, Collective] | None) -> str:
    """Return a program's collectives, a kind after another."""
    if collectives is None:
        return "unknown: libtpu is newer than jaxlib can read"
    runs = lambda one: f" (run {one.runs} ×)" if one.runs != one.written else ""
    return ", ".join(f"{one.written} {kind}{runs(one)}" for kind, one in collectives.items()) or "none"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(lines: dict[str, list[str]]) -> list[str]:
    return [_line(*HEAD), "|---" * len(HEAD) + "|", *(line for name in CASES for line in lines.get(name, []))]


def _write(lines: dict[str, list[str]]) -> None:
    """Put the table into the page, where it has its place; lines of other configs stay."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    kept = {name: [line for line in old.splitlines() if line.startswith(f"| {name} |")] for name in CASES}
    workdir.write(PAGE, "\n".join([before + BEGIN, "", *_table(kept | lines), "", END + after]))


if __name__ == "__main__":
    app.run(main)
