"""What happens beside the steps: the log with its guard, validation, samples, checkpoints, a profile."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from lm import storage, transfer, workdir
from lm.checkpoint import Saver
from lm.metrics import Progress, Writer
from lm.refusal import Refusal
from lm.train.setup import Run
from lm.train.state import State, evaluated
from lm.weights.bundle import form

_SAMPLE_HEADER = "──── step {} ────"


class Log:
    """Writes a row for every log_every-th step and stops the run after too many non-finite ones.

    Metrics of a step are read when the next one has been issued, so the device never waits for the host.
    """

    def __init__(self, run: Run, names: list[str], writer: Writer, progress: Progress, start: int, seconds: float):
        self._run, self._names, self._writer, self._progress = run, names, writer, progress
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._bad = 0
        self._seconds, self._since, self._counted = seconds, time.monotonic(), start

    def __call__(self, number: int, state: State, metrics: dict[str, Any]) -> None:
        """Take a step's metrics; read those of the step before."""
        self.flush()
        self._pending = number, metrics

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Catch up, then keep the block's time out of tokens per second."""
        self.flush()
        begun = time.monotonic()
        yield
        self._since += time.monotonic() - begun

    def flush(self) -> None:
        """Read and write what is pending."""
        if self._pending is None:
            return
        number, metrics = self._pending
        self._pending = None
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        self._guard(number, int(values["non_finite"]))
        config = self._run.config
        if number % config.train.log_every and number != config.train.steps:
            return
        now = time.monotonic()
        elapsed, count = now - self._since, number - self._counted
        self._seconds, self._since, self._counted = self._seconds + elapsed, now, number
        facts = self._run.facts
        rate = (self._run.tokens(number) - self._run.tokens(number - count)) / elapsed
        row = {
            "train/loss": values["loss"],
            "learning_rate": values["learning_rate"],
            "grad_norm": values["grad_norm"],
            "tokens": self._run.tokens(number),
            "tokens_per_second": round(rate, 1),
            "seconds": round(self._seconds, 3),
            "skipped": values["skipped"],
        }
        goal, has_experts = config.objective, config.model.experts > 0
        if goal.label_smoothing or goal.z_loss or (has_experts and (goal.balance_loss or goal.router_z_loss)):
            row["train/objective"] = values["objective"]
        row |= {name: value for name, value in values.items() if "/" in name and not math.isnan(value)}
        if facts["peak_flops_per_device"]:
            row["mfu"] = rate * facts["flops_per_token"] / (facts["peak_flops_per_device"] * facts["devices"])
        self._writer.write(number, row)
        self._progress.show(number, values["loss"], rate)

    def _guard(self, number: int, bad: int) -> None:
        self._bad = self._bad + 1 if bad >= 0 else 0
        if bad < 0:
            return
        what = "the loss" if bad == len(self._names) else f"the gradient of {self._names[bad]}"
        self._progress.say(f"step {number} changed nothing: {what} is not finite.")
        if self._bad >= self._run.config.train.skip_limit:
            raise Refusal(
                f"{self._bad} steps in a row up to step {number} were not finite (in the last, {what}); "
                "lower schedule.peak, lengthen the warmup, or set optimizer.clip."
            )


class Validation:
    """Measures the held-out text and writes its rows; remembers the loss for the checkpoint of the same step."""

    def __init__(
        self, measure: Callable[[State], dict[str, float] | None], log: Log, writer: Writer, progress: Progress
    ):
        self._measure, self._log, self._writer, self._progress = measure, log, writer, progress
        self._last: tuple[int, float] | None = None

    def __call__(self, number: int, state: State, metrics: Any) -> None:
        """Measure; a run that is asked to stop meanwhile leaves no row."""
        with self._log.paused():
            values = self._measure(state)
            if values is None:
                return
            self._last = number, values["loss"]
            self._writer.write(number, {f"valid/{name}": value for name, value in values.items()})
            self._progress.say(f"step {number}: validation {_words(values)}")

    def loss(self, number: int) -> float | None:
        """Return the loss measured at that step, if it was."""
        return self._last[1] if self._last and self._last[0] == number else None


def _words(values: dict[str, float]) -> str:
    words = [f"loss {values['loss']:.4f}", f"perplexity {values['perplexity']:.2f}"]
    if "bits_per_byte" in values:
        words.append(f"{values['bits_per_byte']:.4f} bits per byte")
    for name in ("accuracy", "span_exact_match"):
        if name in values:
            words.append(f"{name.replace('_', ' ')} {values[name]:.2%} (baseline {values[f'baseline_{name}']:.2%})")
    return ", ".join(words)


class Samples:
    """Draws texts along the way into samples.txt."""

    def __init__(self, path: Path, draw: Callable[[State], list[str]], log: Log, progress: Progress):
        self._path, self._draw, self._log, self._progress = path, draw, log, progress

    def __call__(self, number: int, state: State, metrics: Any) -> None:
        """Draw and append; a step that is drawn again replaces what was there."""
        with self._log.paused():
            text = "\n".join(self._draw(state))
            keep_samples(self._path, number - 1)
            before = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            workdir.write(self._path, f"{before}{_SAMPLE_HEADER.format(number)}\n{text}\n\n")
            self._progress.say(f"step {number} sample: {' '.join(text.split())[:100]}")


def keep_samples(path: Path, step: int) -> None:
    """Drop the samples of steps after `step`."""
    if not path.exists():
        return
    kept, is_kept = [], True
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        head, _, rest = _SAMPLE_HEADER.partition("{}")
        if line.startswith(head) and line.rstrip("\n").endswith(rest):
            is_kept = int(line[len(head) : -len(rest) - 1]) <= step
        if is_kept:
            kept.append(line)
    workdir.write(path, "".join(kept))


class Saving:
    """Saves the state, after what was logged up to it is on disk."""

    def __init__(self, saver: Saver, run: Run, log: Log, writer: Writer, loss: Callable[[int], float | None]):
        self._saver, self._run, self._log, self._writer, self._loss = saver, run, log, writer, loss
        self.last = -1

    def __call__(self, number: int, state: State, metrics: Any = None) -> None:
        """Begin to save; the checkpoint counts once its manifest is written, which the saver announces."""
        with self._log.paused():
            self._writer.sync()
            facts = {
                "loss": self._loss(number),
                "skipped": int(state.skipped),
                "fingerprint": self._run.store.fingerprint,
                "form": form(self._run.config.model),
            }
            items = {"params": state.params, "opt_state": state.opt_state}
            averaged = evaluated(state)
            if averaged is not state.params:
                items["averaged"] = averaged
            self._saver.save(number, items, facts)
            self.last = number


class Profile:
    """Writes a JAX profile of the steps that train.profile_steps names."""

    def __init__(self, first: int, last: int, folder: Path, progress: Progress):
        self._first, self._last, self._folder, self._progress = first, last, folder, progress
        self._near = folder  # where the profiler writes
        self._is_on = False

    def __call__(self, number: int, state: State, metrics: Any) -> None:
        """Start after the step before the first, stop after the last has ended."""
        if number == self._first - 1:
            jax.block_until_ready(state)
            if storage.is_far(self._folder):
                self._near = Path(tempfile.mkdtemp())
            jax.profiler.start_trace(str(self._near))
            self._is_on = True
        elif number == self._last and self._is_on:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            if self._near != self._folder:
                transfer.send(self._near, self._folder, self._progress.say)
                storage.remove(self._near)
            self._progress.say(f"profile of steps {self._first} to {self._last} written to {self._folder}")
