"""A lowered program in; what its compiled form takes out: memory of a device, collectives by kind, seconds."""

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.errors import JaxRuntimeError

from lm.refusal import Refusal

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_KIND = re.compile(rf" ({'|'.join(KINDS)})(?:-start)?\(")
_FUSED = (
    "all-reduce-scatter"  # how a TPU's compiler names the computation of its reduce-scatter, begun by an all-reduce
)
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ROLES = "calls", "to_apply", "body", "condition", "branch_computations", "true_computation", "false_computation"
_CALLS = re.compile(rf"\b({'|'.join(_ROLES)})=(\{{[^}}]*\}}|[^\s,]+)")
_TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r"ROOT .* compare\([^,]+, %?([\w.\-]+)\), direction=LT")
_NEEDED = re.compile(r"\(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)")


class Collective(NamedTuple):
    """written: how often it stands in the program. in_loops: of these in loops' bodies. runs: how often it is run in
    one call; a loop has as many turns as it or its condition says, counted from 0, else one."""

    written: int = 0
    in_loops: int = 0
    runs: int = 0


class Compiled(NamedTuple):
    """What a program takes. Bytes are of one device.

    peak: most that is held at once: arguments, outputs (those that take donated arguments' places once) and the most of
    temporaries. collectives: kind → Collective, of those that there are; None where the compiler writes what this
    jaxlib cannot read. seconds: to compile.
    """

    peak: int
    arguments: int
    temporaries: int
    outputs: int
    collectives: dict[str, Collective] | None
    seconds: float


def compiled(lowered: Any) -> Compiled:
    """Compile a lowered program, of jax.jit(…).lower(…), and return what it takes.

    Raises:
      Refusal: it needs more memory than a device has.
    """
    begun = time.perf_counter()
    try:
        program = lowered.compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = "more memory than a device has"
        if found := _NEEDED.search(str(error)):
            sizes = f"at least {found[1]} of memory on a device, which has {found[2]}"
        raise Refusal(f"the program needs {sizes}: give it more devices, or smaller micro-batches.") from None
    seconds = time.perf_counter() - begun
    memory = program.memory_analysis()
    sizes = memory.argument_size_in_bytes, memory.temp_size_in_bytes, memory.output_size_in_bytes
    return Compiled(
        peak=sum(sizes) - memory.alias_size_in_bytes,
        arguments=sizes[0],
        temporaries=sizes[1],
        outputs=sizes[2],
        collectives=_read(program),
        seconds=seconds,
    )


def _read(program: Any) -> dict[str, Collective] | None:
    """Return what `collectives` does of a compiled program; None where its text is of another version than jaxlib."""
    try:
        return collectives(program.as_text())
    except JaxRuntimeError:
        return None


def collectives(text: str) -> dict[str, Collective]:
    """Return kind → Collective of a program's text in XLA's language after its passes (HLO).

    One whose beginning, end and what is done meanwhile are fusions of their own counts once: they have one channel. Of
    branches every one counts as taken.
    """
    parts, entry = _parts(text)
    times: dict[tuple[str, str], tuple[int, bool]] = {}
    _follow(parts, (entry, entry), 1, False, times)
    seen = {}
    for (name, home), (runs, is_in_loop) in times.items():
        for number, line in enumerate(parts[name]):
            if kind := _KIND.search(line):
                channel = _CHANNEL.search(line) if name != home else None
                kind = "reduce-scatter" if name.startswith(_FUSED) else kind[1]
                seen[kind, home, channel[1] if channel else (name, number)] = runs, is_in_loop
    found: dict[str, Collective] = {}
    for (kind, *_), (runs, is_in_loop) in seen.items():
        old = found.get(kind, Collective())
        found[kind] = Collective(old.written + 1, old.in_loops + is_in_loop, old.runs + runs)
    return {kind: found[kind] for kind in KINDS if kind in found}


def _parts(text: str) -> tuple[dict[str, list[str]], str]:
    """Return name → instructions of a program's computations, and the name of the one that is called first."""
    parts, entry, lines = {}, "", []
    for line in text.splitlines():
        if line.startswith(" "):
            lines.append(line)
        elif line.endswith("{"):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            parts[name] = lines = []
            entry = name if line.startswith("ENTRY ") else entry
    return parts, entry


def _follow(parts: Mapping[str, list[str]], place: tuple[str, str], runs: int, is_in_loop: bool, times: dict) -> None:
    """Add to `times` how often a computation and those that it calls are run, and whether in a loop's body.

    place: the computation, and the one of whose fusions it is, or itself.
    """
    before = times.get(place, (0, False))
    times[place] = before[0] + runs, before[1] or is_in_loop
    name, home = place
    for line in parts[name]:
        called = [(role, inner) for role, names in _CALLS.findall(line) for inner in re.findall(r"[\w.\-]+", names)]
        called = [(role, inner) for role, inner in called if inner in parts]
        turns = _turns(line, [parts[inner] for role, inner in called if role == "condition"])
        for role, inner in called:
            is_body, is_fusion = role in ("body", "condition"), role == "calls"
            there = inner, home if is_fusion else inner
            _follow(parts, there, runs * turns if is_body else runs, is_in_loop or is_body, times)


def _turns(line: str, conditions: list[list[str]]) -> int:
    """Return how often a loop is run, or 1."""
    if found := _TURNS.search(line):
        return int(found[1])
    for lines in conditions:
        constants = dict(pair for line in lines for pair in _CONSTANT.findall(line))
        limits = [found[1] for found in map(_BELOW.search, lines) if found]
        return int(constants.get(limits[0], 1)) if limits else 1
    return 1
