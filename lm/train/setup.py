"""A resolved config in; all that the loop needs out. Here the makers meet, and facts are bound before compiling."""

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from lm import checkpoint, workdir
from lm.batch import Batch
from lm.config import run
from lm.config.field import split
from lm.config.objective import check_head, has_prefix
from lm.config.resolve import bind, flatten
from lm.costs import devices, flops
from lm.data import batches, facts, store, windows
from lm.evaluate import heldout
from lm.model import kernels
from lm.model.transformer import Transformer, forward, initial
from lm.objective.base import placed, setting_of
from lm.objective.catalog import objective
from lm.optim import build, schedules
from lm.parallel import attention, local, rules
from lm.parallel import compile as compiling
from lm.parallel import mesh as meshes
from lm.refusal import Refusal
from lm.train import state as states
from lm.train.step import make_step
from lm.weights import start
from lm.weights.bundle import Bundle, counted, shapes


class Run(NamedTuple):
    """What a run is made of.

    config: resolved and bound. store: its tokens. facts: for run.json.
    batch: k → Batch. valid: () → valid_batches pairs (part, Batch) that hold every held-out token once.
    held_out: count → so many held-out rows, from all over them, on the host. usual: the most frequent target that is
    text. is_whole: whether every token is a target.
    step: (state, batch) → (state, metrics), compiled. score: (params, batch) → heldout.Sums, compiled.
    create: () → the State before the first step. restore: step → the State saved then.
    bundle: State → a Bundle that each process can sample from alone; all ask for it together.
    tokens: steps → training tokens in them.
    """

    config: ml_collections.FrozenConfigDict
    store: store.Store
    facts: dict[str, Any]
    batch: Callable[[int], Batch]
    valid: Callable[[], Iterator[tuple[int, Batch]]]
    valid_batches: int
    held_out: Callable[[int], list[Batch]]
    usual: int
    is_whole: bool
    step: Callable[..., Any]
    score: Callable[..., Any]
    create: Callable[[], states.State]
    restore: Callable[[int], states.State]
    bundle: Callable[[states.State], Bundle]
    tokens: Callable[[int], int]


def setup(config: ml_collections.FrozenConfigDict, folder: Path, say: Callable[[str], None]) -> Run:
    """Return the run of a resolved config in a workdir; the token store is built if there is none yet.

    Raises:
      Refusal: data, devices or config do not fit each other.
    """
    check_head(config.objective.name, config.model.head)
    mesh = meshes.make_mesh(config.parallel.mesh, config.data.batch_size, config.train.accumulate)
    tokens = store.open_store(config.data, say, start.tokenizer(config, folder))
    config = bind(config, vocabulary=tokens.tokenizer.size)
    how, setting = config.parallel.compile, setting_of(config.model, tokens.tokenizer)
    goal = objective(config.objective, placed(setting, rules.apart(mesh)) if how == "jit" else setting)
    length = goal.length(config.model.context)
    train, held_out = (windows.planned(tokens.parts, part, config.data, length) for part in ("train", "valid"))
    config = bind(config, tokens=windows.epoch(tokens.parts, train, config.model.context))
    view = Transformer(compiling.settled(config.model, mesh))
    kernel = kernels.chosen(config.parallel.attention, config.model, has_prefix(config), mesh.devices.flat[0])
    attend, takes = kernels.ATTENDS[kernel].attend, kernels.ATTENDS[kernel].takes
    if how == "pmap" and jax.process_count() > 1:
        raise Refusal("parallel.compile is 'pmap', which is for one process; of several the run is compiled by 'jit'.")
    over_mesh = view.clone(
        attend=attention.placed(attend, takes, mesh, "jit"),
        constrain=rules.constrain(mesh),
        by_rows=rules.by_rows(mesh),
    )
    model = over_mesh if how == "jit" else view.clone(attend=attention.placed(attend, takes, mesh, how))
    names = parameter_names(model)
    _check_patterns("optimizer.rates", [pattern for pattern, _ in split(config.optimizer.rates)], names)
    _check_patterns("train.group_norms", config.train.group_norms, names)
    schedule = schedules.schedule(config.schedule, config.train.steps)
    optimizer = build.optimizer(config.optimizer, schedule)

    run_model = forward(model)

    from_params = lambda params: states.create(params, optimizer, is_averaged=config.train.ema > 0)
    drawn = lambda: from_params(initial(model, jax.random.key(config.seed)))

    sources = [part.name for part in tokens.parts] if len(tokens.parts) > 1 else []
    across = compiling.ACROSS[how](mesh, config.train, config.model)
    step = make_step(goal, run_model, optimizer, schedule, config.seed, config.train, sources, across)
    shape = jax.eval_shape(drawn)
    layout = rules.shardings(shape, mesh)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")  # None where the device does not say
    if limit and jax.process_count() > 1 and config.train.sample_every >= 0:
        local.check(shape, shape.params, mesh, limit, config.train.sample_every)
    template = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shape, layout
    )

    def create() -> states.State:
        if not config.init.from_place:
            return compiling.initialise(drawn, mesh)
        return compiling.continued(from_params, start.params(config, template.params, say), mesh)

    def restore(number: int) -> states.State:
        path = folder / workdir.CHECKPOINTS / str(number)
        saved = checkpoint.meta(path.parent, number)
        if saved["fingerprint"] != tokens.fingerprint:
            raise Refusal(
                f"{folder} was trained on other data: its tokens have the fingerprint {saved['fingerprint'][:12]}, "
                f"those here have {tokens.fingerprint[:12]}; use another --workdir."
            )
        scalar = lambda value, like: jax.device_put(np.asarray(value, like.dtype), like.sharding)
        return states.State(
            step=scalar(number, template.step),
            params=checkpoint.restore(path, "params", template.params),
            opt_state=checkpoint.restore(path, "opt_state", template.opt_state),
            skipped=scalar(saved["skipped"], template.skipped),
            ema=checkpoint.restore(path, "averaged", template.ema) if config.train.ema else None,
        )

    rows = rules.rows(mesh)
    size = config.data.batch_size
    train_rows = batches.train_rows(tokens.parts, train, goal.shape, config.seed)
    growth = run.growth(flatten(config))
    if growth.warmup:
        train_rows = batches.grown(train_rows, growth)
    valid_rows = [batches.valid_rows(mine, goal.shape, config.seed) for mine in held_out]
    valid = batches.valid_batches(held_out, size)

    def valid_batch(number: int) -> tuple[int, Batch]:
        part, k = valid[number]
        return part, batches.batch(valid_rows[part], k, size, rows)

    trained = [mine for part, mine in zip(tokens.parts, train, strict=True) if part.weight]
    counts = heldout.counted(batches.spread(trained, goal.shape, config.seed, heldout.COUNTED), config.model)
    row = next(batches.spread(trained, goal.shape, config.seed, 1))
    rules.check_lengths(mesh, row)
    specials = tokens.tokenizer.specials
    data = {"source": ", ".join(config.data.mixture) or config.data.source}
    data |= facts.facts(tokens, train, growth.before(config.train.steps))
    compiled = compiling.compile_step(step, shape, mesh, how)
    if kernels.ATTENDS[kernel].call and how == "jit":
        compiled = attention.fused(compiled, kernel, kernels.ATTENDS[kernel].call)
    return Run(
        config=config,
        store=tokens,
        facts=_facts(config, mesh, row.inputs.shape[-1]) | {"attention": kernel, "data": data},
        batch=lambda k: batches.batch(train_rows, k, size, rows),
        valid=lambda: batches.prefetched(valid_batch, 0, len(valid)),
        valid_batches=len(valid),
        step=compiled,
        held_out=lambda count: list(batches.spread(held_out, goal.shape, config.seed, count)),
        usual=heldout.usual(counts, [specials.end, *specials.unwritten]),
        is_whole=goal.is_whole,
        score=jax.jit(heldout.scorer(goal.loss, forward(over_mesh), heldout.usual(counts))),
        create=create,
        restore=restore,
        bundle=lambda state: Bundle(config, view, local.alone(states.evaluated(state), mesh), tokens.tokenizer),
        tokens=lambda steps: growth.before(steps) * config.model.context,
    )


def parameter_names(model: Transformer) -> list[str]:
    """Return the paths of a model's parameters in leaf order."""
    return list(checkpoint.describe(shapes(model)))


def _check_patterns(field: str, patterns: Sequence[str], names: list[str]) -> None:
    """Refuse a regular expression that no parameter's path matches."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise Refusal(f"{field} has {pattern!r}: no parameter's path matches it; they are such as {names[0]!r}.")


def _facts(config: ml_collections.FrozenConfigDict, mesh: Any, length: int) -> dict[str, Any]:
    """Return facts for run.json; `length` is how many tokens of a row the model's last stack reads."""
    kind = jax.devices()[0].device_kind
    peak = devices.peak(kind)
    leaves = counted(config.model)
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "grain")
    return {
        "finished": False,
        "versions": {"lm": importlib.metadata.version("lm"), "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "git_commit": _commit(),
        "backend": jax.default_backend(),
        "device_kind": kind,
        "devices": jax.device_count(),
        "mesh": dict(mesh.shape),
        "peak_flops_per_device": peak,
        "parameters": flops.parameters(leaves),
        **({"active_parameters": flops.active_parameters(config.model, leaves)} if config.model.experts else {}),
        "flops_per_token": flops.training_flops_per_token(config.model, leaves, length),
        "tokens_per_step": config.data.batch_size * config.model.context,
        "vocabulary": config.model.vocabulary,
    }


def _commit() -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"
