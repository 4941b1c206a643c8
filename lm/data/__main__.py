"""Build the token store of a config ahead of a run, and look at what a run will see.

    python -m lm.data --config=configs/quickstart.py --config.data.source='files:my/*.txt'
    python -m lm.data --config=configs/quickstart.py --config.data.mixture="('files:en/*.txt=2', 'files:de/*.txt=1')"

Checks every file of the store; prints of each source its share of the samples, its splits, and how often the run will
see it; and shows the first rows of training: each token with its target and weight, and where the records begin; or,
where records are pairs, the tokens of the first inputs and targets.
"""

from collections.abc import Callable
from typing import Any

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
    shape, show = {"text": (goal.shape, _show_row), "pair": (lambda pair, key: pair, _show_pair)}[config.data.unit]
    rows = batches.train_rows(tokens.parts, train, shape, config.seed)
    for sample in range(ROWS.value):
        show(sample, rows(sample), tokens)


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


def _show_row(sample: int, row: Any, tokens: Any) -> None:
    """Print a row of training."""
    source = tokens.parts[row.source].name
    records = f"records {row.segments[0]} to {row.segments.max()}"
    print(f"\nrow {sample} of {source}, {records}: |token → target|, × where weight 0")
    read = tokens.tokenizer.token
    if row.encoder_inputs is not None:
        print("the encoder reads:", _tokens(row.encoder_inputs, read))
    shown = []
    for token, target, weight, position in zip(row.inputs, row.targets, row.weights, row.positions, strict=True):
        mark = "" if weight else " ×"
        start = "\n" if position == 0 and shown else ""
        shown.append(f"{start}|{read(int(token))!r} → {read(int(target))!r}{mark}|")
    print(" ".join(shown[: TOKENS.value]))


def _show_pair(sample: int, pair: Any, tokens: Any) -> None:
    """Print a pair of training."""
    print(f"\nrow {sample} of {tokens.parts[pair.source].name}, a pair: |token|")
    for name, ids in (("input", pair.input_ids), ("target", pair.target_ids)):
        print(f"{name}, {len(ids):,} tokens: {_tokens(ids, tokens.tokenizer.token)}")


def _tokens(ids: Any, read: Callable[[int], str]) -> str:
    return " ".join(f"|{read(int(token))!r}|" for token in ids[: TOKENS.value])


if __name__ == "__main__":
    command.run(main, __doc__, sections=("data.", "model.context", "seed"))
