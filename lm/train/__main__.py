"""Train a model: start the run that a config describes, or continue what the workdir holds.

    python -m lm.train --config=configs/quickstart.py --workdir=runs/quickstart --config.train.steps=500

The same command again resumes after the newest checkpoint. SIGTERM and Ctrl-C finish the step, save, and exit
143 and 130. The workdir then holds metrics.jsonl, samples.txt, checkpoints/ and report.html.
"""

from lm.parallel.host import keep_memory

if __name__ == "__main__":
    keep_memory()  # before the first thread, which NumPy's import starts

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags

from lm import command, mirrors, workdir
from lm.config.field import IDENTITY
from lm.config.files import from_json, to_json
from lm.config.resolve import differences, flatten, resolve
from lm.refusal import Refusal

CONFIG = command.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)


class Stop:
    """Signals that ask for an end: before the first step at once, later when the step is done and saved."""

    def __init__(self) -> None:
        self.number = 0
        self.is_graceful = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: object) -> None:
        self.number = number
        if not self.is_graceful:
            sys.exit(128 + number)

    def is_asked(self) -> bool:
        return self.number != 0


def main() -> int:
    """Resolve, set up, train, report."""
    folder = Path(WORKDIR.value)
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"--workdir {str(folder)!r} is a file; name a folder.")
    config = resolve(_started(CONFIG.value, folder))
    _check_identity(config, folder)
    mirrors.check(config.train.mirrors)
    stop = Stop()
    with workdir.lock(folder / workdir.LOCK, f"the workdir {folder}"):
        return _train(config, folder, stop)


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


def _train(config: object, folder: Path, stop: Stop) -> int:
    begun = time.monotonic()
    import jax

    from lm import checkpoint, metrics
    from lm.evaluate import gaps, heldout, samples
    from lm.report import page
    from lm.train import hooks, loop
    from lm.train.setup import parameter_names, setup
    from lm.train.state import State, evaluated

    jax.config.update("jax_default_matmul_precision", config.parallel.matmul_precision)
    say = lambda words: print(words, file=sys.stderr, flush=True)
    run = setup(config, folder, say)
    config = run.config
    steps, section = config.train.steps, config.train
    start = checkpoint.newest(folder / workdir.CHECKPOINTS, say) or 0
    _check_identity(config, folder)  # once more, with what the data settled
    _check_horizon(config, folder, start, say)
    state = run.restore(start) if start else run.create()
    workdir.write(folder / workdir.CONFIG, to_json(config))  # first, since it makes the folder a run's
    run.store.tokenizer.save(folder / workdir.TOKENIZER)
    workdir.write_json(folder / workdir.RUN, run.facts)
    rows = metrics.read(folder / workdir.METRICS)
    seconds = max((row.value for row in rows if row.name == "seconds" and row.step <= start), default=0.0)
    hooks.keep_samples(folder / workdir.SAMPLES, start)
    say(_opening(run, start))

    progress = metrics.Progress(start, steps)
    writer = metrics.Writer(folder, start, section.mirrors, progress.say)
    saver = checkpoint.Saver(folder / workdir.CHECKPOINTS, section.keep_latest, section.keep_best, progress.say)
    log = hooks.Log(run, parameter_names(run.bundle(state).model), writer, progress, start, seconds)
    parts = [(part.name, part.valid.bytes) for part in run.store.parts]

    def measure(state: State) -> dict[str, float] | None:
        rows = progress.track(run.valid(), run.valid_batches)
        values = heldout.measure(run.score, evaluated(state), rows, parts, run.is_whole, stop.is_asked)
        return values and values | gaps.measure(run.bundle(state), run.held_out, run.usual)

    validation = hooks.Validation(measure, log, writer, progress)
    draw = lambda state: samples.draw(run.bundle(state), run.held_out(samples.ROWS), section.sample_prompt)
    sampling = hooks.Samples(folder / workdir.SAMPLES, draw, log, progress)
    saving = hooks.Saving(saver, run, log, writer, validation.loss)
    plan = [(1, log), (section.evaluate_every, validation), (section.sample_every, sampling)]
    if section.profile_steps:
        plan.append((1, hooks.Profile(*section.profile_steps, folder / workdir.PROFILE, progress)))
    plan.append((section.checkpoint_every, saving))
    with contextlib.closing(progress), contextlib.closing(writer), contextlib.closing(saver):
        stop.is_graceful = True
        if config.init.from_place and start == 0 and not _has(rows, 0):
            validation(0, state, None)  # where it starts
        if start and _is_due(start, section.evaluate_every, steps) and not _has(rows, start):
            validation(start, state, None)  # the run was stopped before it could
            checkpoint.score(folder / workdir.CHECKPOINTS, start, validation.loss(start))
        done, state = loop.train(run, state, start, plan, stop.is_asked)
        log.flush()
        if done > start and saving.last != done:
            saving(done, state)
    is_finished = done == steps and _has(metrics.read(folder / workdir.METRICS), done)
    workdir.write_json(folder / workdir.RUN, run.facts | {"finished": is_finished})
    page.write(folder)
    if stop.number:
        say(f"stopped by {signal.Signals(stop.number).name} after step {done}; the same command goes on from there.")
        return 128 + stop.number
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


def _has(rows: list, step: int) -> bool:
    """Say whether a step's validation is in the metrics."""
    return any(row.step == step and row.name == "valid/loss" for row in rows)


if __name__ == "__main__":
    command.run(main, __doc__, sections=("",))
