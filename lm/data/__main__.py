"""Build the token store of a config ahead of a run, and look at what a run will see.

    python -m lm.data --config=configs/quickstart.py --config.data.source='files:my/*.txt'
    python -m lm.data --config=configs/quickstart.py --config.data.mixture="('files:en/*.txt=2', 'files:de/*.txt=1')"

Checks every file of the store; prints of each source its share of the samples, its splits, and how often the run will
see it; and shows the first rows of training as the objective shapes them: each token with its target and weight, where
the records begin, and what an encoder reads beside them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from lm import command
from lm.config.data import parts
from lm.config.resolve import bind, flatten, resolve
from lm.config.run import growth

CONFIG = command.define_config()
PREPARE = flags.DEFINE_bool("prepare", False, "download and prepare the tfds: sources first; needs a network")
ROWS = flags.DEFINE_integer("rows", 2, "training rows to show", lower_bound=0)
TOKENS = flags.DEFINE_integer("tokens", 24, "tokens of each row to show", lower_bound=1)


def main() -> None:
    """Build, verify, show."""
    from lm.weights import start

    config = resolve(start.started(CONFIG.value))
    from lm.data import batches, store, windows
    from lm.data.facts import facts
    from lm.objective.base import setting_of
    from lm.objective.catalog import objective

    if PREPARE.value:
        _prepare(config.data)
    tokens = store.open_store(config.data, print, start.tokenizer(config))
    store.verify(tokens)
    config = bind(config, vocabulary=tokens.tokenizer.size)
    goal = objective(config.objective, setting_of(config.model, tokens.tokenizer))
    train = windows.planned(tokens.parts, "train", config.data, goal.length(config.model.context))
    config = bind(config, tokens=windows.epoch(tokens.parts, train, config.model.context))
    print(f"\nstore        {config.data.store}, {len(tokens.files)} files, all as written")
    print(f"fingerprint  {tokens.fingerprint}")
    print(f"tokenizer    {tokens.tokenizer.kind}, {tokens.tokenizer.size:,} ids")
    samples = growth(flatten(config)).before(config.train.steps)
    print(f"run          {config.train.steps:,} steps, {samples:,} rows")
    for part in facts(tokens, train, samples)["parts"]:
        _show_part(part)
    rows = batches.train_rows(tokens.parts, train, goal.shape, config.seed)
    for sample in range(ROWS.value):
        _show_row(sample, rows(sample), tokens, config.objective.labels)


def _prepare(section: Any) -> None:
    """Prepare every source that is a set of TensorFlow Datasets."""
    for name in parts(section.source, section.mixture):
        kind, _, rest = name.partition(":")
        if kind == "tfds":
            from lm.data import tfds

            tfds.prepare(rest, section.folder, print)


def _show_part(part: dict[str, Any]) -> None:
    """Print the numbers of a source."""
    print(f"\n{part['source']}: {part['share']:.2%} of the samples, {part['epochs']:,.2f} epochs")
    for split in ("train", "valid"):
        numbers = part[split]
        size = numbers["bytes"] + numbers["input_bytes"]
        print(
            f"  {split}    {numbers['records']:,} records, {size / 1e6:,.2f} MB, "
            f"{numbers['tokens']:,} tokens, {size / numbers['tokens']:.2f} bytes per token"
        )
    if "windows" in part:
        print(f"  windows  {part['windows']:,} to train on, {part['filled']:.2%} filled")
    for name in ("input", "target") if "pairs" in part else ():
        half, most, longest = part[f"{name}_tokens"]
        print(f"  {name:8} up to {half:,} tokens in half of the pairs, {most:,} in 99 of 100, {longest:,} in all")


def _show_row(sample: int, row: Any, tokens: Any, labels: Sequence[str]) -> None:
    """Print a row of training but its padding; `labels` are what targets stand for, where that is no token."""
    read = lambda token: repr(tokens.tokenizer.token(int(token)))
    said = (lambda target: repr(labels[target])) if labels else read
    seen = "" if row.prefix is None else ", ^ seen from before it"
    records = f"records {row.segments[0]} to {row.segments.max()}"
    print(f"\nrow {sample} of {tokens.parts[row.source].name}, {records}: |token → target|, × where weight 0{seen}")
    if row.encoder_inputs is not None:
        cells = [f"|{read(token)}|" for token in row.encoder_inputs]
        print("the encoder reads:", _shown(cells, row.encoder_segments, row.encoder_positions))
    prefix = np.zeros(len(row.inputs), bool) if row.prefix is None else row.prefix
    cells = []
    for token, target, weight, is_seen in zip(row.inputs, row.targets, row.weights, prefix, strict=True):
        wanted = f"{said(target)}" if weight else f"{'' if labels else read(target)} ×"
        cells.append(f"|{read(token)} → {wanted}{' ^' * bool(is_seen)}|")
    print(_shown(cells, row.segments, row.positions))


def _shown(cells: Sequence[str], segments: np.ndarray, positions: np.ndarray) -> str:
    """Return the first tokens of a row, each record on lines of its own."""
    shown = [
        ("\n" if place and not position else "") + cell
        for place, (cell, segment, position) in enumerate(zip(cells, segments, positions, strict=True))
        if segment
    ]
    return " ".join(shown[: TOKENS.value])


if __name__ == "__main__":
    command.run(main, __doc__, sections=("data.", "model.context", "seed"))
