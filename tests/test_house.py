"""The house: who may import whom, one way to configure, catalogs that say what the schema says, files of one idea."""

import ast
import re
from pathlib import Path

import pytest

from lm.config import schema

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "lm").rglob("*.py"))

FLOORS = {
    1: [
        "batch",
        "command",
        "config",
        "costs",
        "families",
        "growth",
        "metrics",
        "mirrors",
        "refusal",
        "text",
        "trees",
        "lock",
        "storage",
        "transfer",
        "workdir",
    ],
    2: ["checkpoint", "data", "model", "objective", "optim", "parallel", "report"],
    3: ["weights"],
    4: ["generate"],
    5: ["evaluate"],
    6: ["train"],
    7: ["plan"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def room(path):
    """Return the room of a file under lm/."""
    return path.relative_to(ROOT / "lm").parts[0].removesuffix(".py")


def imports(path):
    """Yield the modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lm")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lm":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = (ROOT / (name.replace(".", "/") + ".py")).exists() or (
                    ROOT / name.replace(".", "/")
                ).is_dir()
                yield name if is_module else node.module


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rooms_import_lower_floors_only(path):
    here = room(path)
    if here == "__init__":
        return
    for module in imports(path):
        assert not module.endswith("__main__"), f"{path} imports a door"
        there = module.split(".")[1] if "." in module else here
        if there == here:
            continue
        if FLOOR[here] == FLOOR[there] and FLOOR[here] == 1:
            continue  # ground rooms stand side by side; the next test keeps circles out
        if path.name == "__main__.py":
            continue  # a door calls the rooms it needs
        assert FLOOR[there] < FLOOR[here], f"{path} on floor {FLOOR[here]} imports {module} on floor {FLOOR[there]}"


def test_no_circles():
    arrows = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        arrows[name] = {module for module in imports(path) if module != name}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"a circle: {' → '.join([*open_[open_.index(name) :], name])}"
        if name not in done:
            open_.append(name)
            for module in sorted(arrows.get(name, ())):
                visit(module)
            done.add(open_.pop())

    for name in arrows:
        visit(name)


def test_outside_depends_inward():
    for path in (ROOT / "configs").glob("*.py"):
        assert {module.split(".")[1] for module in imports(path)} <= {"config", "families"}, path


def test_catalogs_say_what_the_schema_says():
    from lm.data.catalog import SOURCES
    from lm.data.packing import PACKINGS
    from lm.families.catalog import FAMILIES
    from lm.mirrors import MIRRORS
    from lm.model.block import WIRINGS
    from lm.model.feedforward import ACTIVATIONS
    from lm.model.init import INITS
    from lm.model.kernels import ATTENDS
    from lm.model.norms import NORMS
    from lm.model.positions import ADDED, BIASES, TURNED
    from lm.model.stack import REMAT
    from lm.objective.catalog import OBJECTIVES
    from lm.optim.optimizers import OPTIMIZERS
    from lm.optim.schedules import DECAYS, SHAPES
    from lm.parallel.compile import ACROSS
    from lm.text.learn import KINDS
    from lm.text.normalize import FORMS

    catalogs = {
        "data.normalization": set(FORMS),
        "data.packing": set(PACKINGS),
        "model.family": set(FAMILIES),
        "model.norm": set(NORMS),
        "model.wiring": set(WIRINGS),
        "model.positions": {"none", *ADDED, *TURNED, *BIASES},
        "model.init": set(INITS),
        "model.activation": set(ACTIVATIONS),
        "model.remat": {"none", *REMAT},
        "parallel.compile": set(ACROSS),
        "objective.name": set(OBJECTIVES),
        "parallel.attention": {"auto", *ATTENDS},
        "optimizer.name": set(OPTIMIZERS),
        "schedule.name": set(SHAPES),
        "schedule.decay_shape": set(DECAYS),
        "train.mirrors": set(MIRRORS),
    }
    for name, keys in catalogs.items():
        assert set(schema.FIELDS[name].rule.choices) == keys, name
        in_type = lambda name, key: (key,) if schema.FIELDS[name].type is tuple else key
        assert all(schema.FIELDS[name].rule.holds(in_type(name, key)) for key in keys)
    kinds = lambda name: {choice.partition(":")[0] for choice in schema.FIELDS[name].rule.choices}
    assert kinds("data.source") == set(SOURCES) and kinds("data.tokenizer") == set(KINDS)


def test_every_field_is_read():
    text = re.sub(r'"[\w.]+": Field', "", "\n".join(path.read_text(encoding="utf-8") for path in FILES))
    for name in schema.FIELDS:
        leaf = name.split(".")[-1]
        assert re.search(rf"\b{leaf}\b", text), f"nobody reads {name}"


def test_defaults_are_allowed():
    for name, field in schema.FIELDS.items():
        assert schema.complaint(name, field.default) == "", name
        assert field.meaning and field.rule.words
        assert all(field.rule.choices.values()), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_hold_one_idea_and_say_which(path):
    text = path.read_text(encoding="utf-8")
    if not text:
        return
    assert ast.get_docstring(ast.parse(text)), "line one says what comes in and what goes out"
    assert text.count("\n") <= 320
    for word in ("os.environ", "os.getenv", "allow_pickle=True", "import pickle", "import torch", "import tensorflow"):
        assert word not in text, word
