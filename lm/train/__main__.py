"""Train a model: start the run that a config describes, or continue what the workdir holds.

    python -m lm.train --config=configs/quickstart.py --workdir=runs/quickstart --config.train.steps=500

The same command again resumes after the newest checkpoint. SIGTERM and Ctrl-C finish the step, save, and exit
143 and 130. The workdir then holds metrics.jsonl, samples.txt, checkpoints/ and report.html.

Several processes are one run: each is started by the same command, all see the workdir, and the signal may come to any.
Cloud TPU, Slurm and Open MPI say by themselves which there are; elsewhere the flags say it, or python -m
lm.parallel.launch, for those of one machine.
"""

from lm.parallel.host import keep_memory

if __name__ == "__main__":
    keep_memory()  # before the first thread, which NumPy's import starts

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from lm import command, mirrors, storage, workdir
from lm import lock as locks
from lm.config.field import IDENTITY
from lm.config.files import from_json, to_json
from lm.config.resolve import differences, flatten, resolve
from lm.parallel import processes
from lm.parallel.processes import Processes
from lm.parallel.stop import Stop
from lm.refusal import Refusal

CONFIG = command.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; gs://BUCKET/FOLDER with lm[gcs]", required=True)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several that are named by hand")
COUNT = flags.DEFINE_integer("processes", None, "how many processes the run has")
INDEX = flags.DEFINE_integer("process", None, "which of them this one is, from 0")

_SEEN_WITHIN = 60  # seconds that a network's file system may take to show what another machine wrote


def main() -> int:
    """Resolve, set up, train, report."""
    folder = storage.place(WORKDIR.value)
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"--workdir {str(folder)!r} is a file; name a folder.")
    named = processes.named(COORDINATOR.value, COUNT.value, INDEX.value)
    config = resolve(_started(CONFIG.value, folder))
    _check_identity(config, folder)
    mirrors.check(config.train.mirrors)
    stop = Stop()
    together = processes.join(named)
    with together.ending():
        stop.join(together)
        with _locked(folder, together):
            return _train(config, folder, stop, together)


@contextlib.contextmanager
def _locked(folder: Path, together: Processes) -> Iterator[None]:
    """Hold the workdir's lock, at the main process for all."""
    with contextlib.ExitStack() as held:
        say = lambda words: print(words, file=sys.stderr, flush=True)
        lock = locks.held(folder / workdir.LOCK, f"the workdir {folder}", say)
        together.at_once(held.close)
        together.agree(lambda: held.enter_context(lock))
        yield


def _started(config: object, folder: Path) -> object:
    """Return the config with what init.from_place says, if it names a PLACE."""
    flat = flatten(config)
    if "init.from_place" not in flat or not flat["init.from_place"]:
        return config  # without importing JAX, so that a mistake is told at once
    from lm.weights import start

    return start.started(config, folder)


def _check_identity(config: object, folder: Path) -> None:
    """Refuse a workdir that holds a run of another identity, or something else."""
    if (folder / workdir.CONFIG).is_file():
        old = from_json((folder / workdir.CONFIG).read_text(encoding="utf-8"))
        if changed := differences(old, config, IDENTITY):
            raise Refusal(f"{folder} holds a run of another config ({'; '.join(changed)}); use another --workdir.")
    elif folder.is_dir() and not all(path.name.startswith((workdir.LOCK, ".")) for path in folder.iterdir()):
        raise Refusal(f"{folder} holds files, but no run ({workdir.CONFIG}); use another --workdir.")


def _check_horizon(config: object, folder: Path, start: int, say: Callable[[str], None]) -> None:
    """Refuse an end that has been passed; warn when another one changes the rates of steps to come."""
    from lm.optim import schedules

    steps = config.train.steps
    if start > steps:
        raise Refusal(f"train.steps is {steps}: {folder} is at step {start} already.")
    if start:
        before = from_json((folder / workdir.CONFIG).read_text(encoding="utf-8")).train.steps
        if steps != before and schedules.moves(config.schedule, before, steps, start):
            say(f"warning: train.steps was {before} and is {steps}, so the {config.schedule.name} schedule moves.")


def _check_shared(folder: Path, together: Processes) -> None:
    """Refuse a workdir in which this process does not see what the main one has written."""
    limit = time.monotonic() + _SEEN_WITHIN
    while not (folder / workdir.CONFIG).is_file():
        if time.monotonic() > limit:
            raise Refusal(f"process {together.index} sees no run in {folder}: --workdir must be a folder all share.")
        time.sleep(1.0)


def _train(config: object, folder: Path, stop: Stop, together: Processes) -> int:
    begun = time.monotonic()
    import jax

    from lm import checkpoint, metrics
    from lm.evaluate import gaps, heldout, samples
    from lm.report import page
    from lm.train import hooks, loop
    from lm.train.setup import setup
    from lm.train.state import State, evaluated

    jax.config.update("jax_default_matmul_precision", config.parallel.matmul_precision)
    out = sys.stderr if together.is_main else open(os.devnull, "w", encoding="utf-8")
    say = lambda words: print(words, file=out, flush=True)
    run = setup(config, folder, say)
    config = run.config
    steps, section = config.train.steps, config.train
    start = together.agree(lambda: checkpoint.newest(folder / workdir.CHECKPOINTS, say) or 0)
    together.agree(lambda: _check_identity(config, folder))  # once more, with what the data settled
    together.agree(lambda: _check_horizon(config, folder, start, say))
    state = run.restore(start) if start else run.create()
    if together.is_main:
        workdir.write(folder / workdir.CONFIG, to_json(config))  # first, since it makes the folder a run's
        run.store.tokenizer.save(folder / workdir.TOKENIZER)
        workdir.write_json(folder / workdir.RUN, run.facts)
        hooks.keep_samples(folder / workdir.SAMPLES, start)
    seconds, validated = together.agree(lambda: _before(metrics.read(folder), start))
    _check_shared(folder, together)
    say(_opening(run, start))

    progress = metrics.Progress(start, steps, out)
    writer = metrics.Writer(folder, start, section.mirrors, progress.say) if together.is_main else metrics.Unwritten()
    kept = section.keep_latest, section.keep_best
    saver = checkpoint.Saver(folder / workdir.CHECKPOINTS, *kept, progress.say, together.is_main, together.agree)
    log = hooks.Log(run, list(checkpoint.describe(state.params)), writer, progress, start, seconds)
    parts = [(part.name, part.valid.bytes) for part in run.store.parts]

    def measure(state: State) -> dict[str, float] | None:
        rows = progress.track(run.valid(), run.valid_batches)
        values = heldout.measure(run.score, evaluated(state), rows, parts, run.is_whole, stop.is_asked)
        if values is None or section.sample_every < 0 or not gaps.has_spans(config):
            return values
        bundle = run.bundle(state)
        return values | (gaps.measure(bundle, run.held_out, run.usual) if together.is_main else {})

    validation = hooks.Validation(measure, log, writer, progress)
    draw = lambda state: samples.draw(run.bundle(state), run.held_out(samples.ROWS), section.sample_prompt)
    sampling = hooks.Samples(folder / workdir.SAMPLES, draw, log, progress)
    if not together.is_main:
        sampling = lambda number, state, metrics: run.bundle(state)  # the main process needs the others for it
    saving = hooks.Saving(saver, run, log, writer, validation.loss)
    plan = [(1, log), (section.evaluate_every, validation)]
    if section.sample_every >= 0:
        plan.append((section.sample_every, sampling))
    if section.profile_steps:
        plan.append((1, hooks.Profile(*section.profile_steps, folder / workdir.PROFILE, progress)))
    plan.append((section.checkpoint_every, saving))
    with contextlib.closing(progress), contextlib.closing(writer), contextlib.closing(saver):
        stop.is_graceful = True
        if config.init.from_place and start == 0 and not validated:
            validation(0, state, None)  # where it starts
        if start and _is_due(start, section.evaluate_every, steps) and not validated:
            validation(start, state, None)  # the run was stopped before it could
            together.agree(lambda: checkpoint.score(folder / workdir.CHECKPOINTS, start, validation.loss(start)))
        done, state = loop.train(run, state, start, plan, stop.is_asked)
        log.flush()
        if done > start and saving.last != done:
            saving(done, state)
    if together.is_main:
        _, validated = _before(metrics.read(folder), done)
        workdir.write_json(folder / workdir.RUN, run.facts | {"finished": done == steps and validated})
        page.write(folder)
    if number := together.agree(lambda: stop.number):
        say(f"stopped by {signal.Signals(number).name} after step {done}; the same command goes on from there.")
        return 128 + number
    say(f"done in {time.monotonic() - begun:.1f} s: {folder / workdir.REPORT}")
    return 0


def _opening(run: object, start: int) -> str:
    facts = run.facts
    words = f"{facts['parameters']:,} parameters, {facts['devices']} × {facts['device_kind']}, "
    most = "up to " if run.config.train.batch_warmup_steps else ""
    words += f"{run.config.train.steps:,} steps of {most}{facts['tokens_per_step']:,} tokens"
    return words + (f", resuming after step {start:,}" if start else "")


def _is_due(step: int, every: int, steps: int) -> bool:
    return step == steps or bool(every and step % every == 0)


def _before(rows: list, step: int) -> tuple[float, bool]:
    """Return the seconds that were taken up to a step, and whether its validation is in the metrics."""
    seconds = max((row.value for row in rows if row.name == "seconds" and row.step <= step), default=0.0)
    return seconds, any(row.step == step and row.name == "valid/loss" for row in rows)


if __name__ == "__main__":
    command.run(main, __doc__, sections=("",))
