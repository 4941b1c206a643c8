"""Rows in, what others show of them out: a class per place, one entry of MIRRORS each. metrics.jsonl stays the truth.

A mirror is opened on a workdir, to take the rows after a step; `package` is the distribution that it needs.
"""

import importlib.metadata
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lm import storage, transfer, workdir
from lm.refusal import Refusal

_RUN_ID = "run-id"  # stands in the workdir, so a run that goes on is the same run there, and a new one is not


class TensorBoard:
    """Event files; what was there after the step is not shown any more."""

    package = "tensorboardX"

    def __init__(self, folder: Path, step: int):
        from tensorboardX import SummaryWriter  # a second to import, so not before it is needed

        self._writer = SummaryWriter(str(folder / workdir.TENSORBOARD), purge_step=step + 1, flush_secs=30)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B's project lm, named as the workdir; steps that it has already are left as they are."""

    package = "wandb"

    def __init__(self, folder: Path, step: int):
        import wandb

        path = folder / workdir.WANDB / _RUN_ID
        if not path.exists():
            workdir.write(path, uuid.uuid4().hex)
        self._run = wandb.init(
            project="lm",
            name=storage.absolute(folder).name,
            id=path.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(transfer.NEAR.expanduser() if storage.is_far(folder) else folder),
            config=json.loads((folder / workdir.CONFIG).read_text(encoding="utf-8")),
            settings=wandb.Settings(console="off"),  # the terminal is ours
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._run.step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


MIRRORS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check(names: Sequence[str]) -> None:
    """Refuse a mirror whose package is not installed."""
    for name in names:
        try:
            importlib.metadata.version(MIRRORS[name].package)
        except importlib.metadata.PackageNotFoundError:
            raise Refusal(f"train.mirrors has {name!r}: pip install 'lm[{name}]'.") from None


class Mirrors:
    """Mirrors that are open; one that fails is left out from then on, since none may end a run."""

    def __init__(self, names: Sequence[str], folder: Path, step: int, say: Callable[[str], None]):
        self._say = say
        self._open: dict[str, TensorBoard | WeightsAndBiases] = {}
        for name in names:
            with self._spared(name):
                self._open[name] = MIRRORS[name](folder, step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one step to each."""
        for name, mirror in list(self._open.items()):
            with self._spared(name):
                mirror.write(step, values)

    def close(self) -> None:
        """Close each."""
        for name, mirror in list(self._open.items()):
            with self._spared(name):
                mirror.close()

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever another's code raises
            self._open.pop(name, None)
            words = " ".join(str(error).split()) or type(error).__name__
            self._say(f"train.mirrors: {name} failed ({words}); the run goes on without it.")
