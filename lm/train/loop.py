"""The loop: batch, step, hooks."""

from collections.abc import Callable, Iterable
from typing import Any

from lm.data.batches import prefetched
from lm.train.setup import Run
from lm.train.state import State

Hook = tuple[int, Callable[[int, State, dict[str, Any]], None]]  # (every, function); 0: after the last step only


def train(
    run: Run, state: State, start: int, hooks: Iterable[Hook], is_stopping: Callable[[], bool]
) -> tuple[int, State]:
    """Take the steps after `start`, until the last one or until asked to stop; return (steps done, state).

    A step is issued before the one in front of it has ended: hooks must not read the metrics they are given,
    except those of steps before.
    """
    steps = run.config.train.steps
    for number, batch in enumerate(prefetched(run.batch, start, steps), start + 1):
        state, metrics = run.step(state, batch)
        for every, hook in hooks:
            if number == steps or (every and number % every == 0):
                hook(number, state, metrics)
        if is_stopping():
            return number, state
    return steps, state
