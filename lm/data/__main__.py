"""Build the token store of a config ahead of a run, and look at what a run will see.

    python -m lm.data --config=configs/quickstart.py --config.data.source='files:my/*.txt'

Prints the splits' statistics, checks every file of the store, and shows the first rows of training: each token with
its target and weight, and where the records begin.
"""

from absl import flags

from lm import command
from lm.config.resolve import bind, resolve
from lm.refusal import Refusal

CONFIG = command.define_config()
ROWS = flags.DEFINE_integer("rows", 2, "training rows to show", lower_bound=0)
TOKENS = flags.DEFINE_integer("tokens", 24, "tokens of each row to show", lower_bound=1)


def main() -> None:
    """Build, verify, show."""
    config = resolve(CONFIG.value)
    from lm.data import batches, store, windows
    from lm.objective.catalog import objective
    from lm.objective.losses import logits_of

    tokens = store.open_store(config.data, print)
    store.verify(tokens)
    print(f"\nstore        {tokens.folder}, every file as written")
    print(f"fingerprint  {tokens.fingerprint}")
    print(f"tokenizer    {tokens.tokenizer.kind}, {tokens.tokenizer.size:,} ids")
    for name in store.SPLITS:
        facts = tokens.index["splits"][name]
        print(
            f"{name:12} {facts['records']:,} records, {facts['bytes'] / 1e6:,.2f} MB, {facts['tokens']:,} tokens, "
            f"{facts['bytes'] / facts['tokens']:.2f} bytes per token"
        )
    config = bind(config, vocabulary=tokens.tokenizer.size, tokens=tokens.train.tokens)
    goal = objective(config.objective, logits_of(config.model))
    plan = windows.Windows(tokens.train, goal.length(config.model.context), config.data.cross_records)
    rows = batches.train_rows(plan, goal.shape, config.seed)
    print(f"epoch        {plan.whole:,} windows, {plan.whole / config.data.batch_size:,.1f} steps")
    if ROWS.value > plan.whole:
        raise Refusal(f"--rows is {ROWS.value}: it must be at most the {plan.whole} windows of an epoch.")
    for sample in range(ROWS.value):
        row = rows(sample)
        print(
            f"\nrow {sample}, records {row.segments.min()} to {row.segments.max()}: |token → target|, × where weight 0"
        )
        shown = []
        for token, target, weight, position in zip(row.inputs, row.targets, row.weights, row.positions, strict=True):
            mark = "" if weight else " ×"
            start = "\n" if position == 0 and shown else ""
            read = tokens.tokenizer.token
            shown.append(f"{start}|{read(int(token))!r} → {read(int(target))!r}{mark}|")
        print(" ".join(shown[: TOKENS.value]))


if __name__ == "__main__":
    command.run(main, __doc__, sections=("data.", "model.context", "seed"))
