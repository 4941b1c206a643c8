"""A Bundle and a data section in; what the model makes of the section's held-out text, in its own tokens, out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from lm.data import batches, store, windows
from lm.evaluate import gaps, heldout, strided
from lm.model.transformer import Transformer, forward
from lm.objective.base import Objective, setting_of
from lm.objective.catalog import objective
from lm.refusal import Refusal
from lm.weights.bundle import Bundle


def measure(
    bundle: Bundle, section: Any, context: int, say: Callable[[str], None], stride: int = 0
) -> dict[str, float]:
    """Return what heldout.measure does, of every held-out token once.

    Args:
      bundle: the model; its config says the objective.
      section: a data section; the tokenizer is the Bundle's, whatever the section says.
      context: tokens in a window.
      say: hears of the store that is built, and of long work.
      stride: tokens by which the windows of a record move on, of records longer than one (strided.py); 0: they are
        packed as in training.

    Raises:
      Refusal: text, tokenizer or model are not for it.
    """
    setting = setting_of(_readable(bundle, context), bundle.tokenizer)._replace(context=context)
    goal = objective(bundle.config.objective, setting)
    if stride > context:
        raise Refusal(f"--stride is {stride}: it must be at most --context ({context}), or tokens would be left out.")
    if stride and not (goal.is_whole and goal.unit == "text"):
        raise Refusal(f"--stride is {stride}: {bundle.config.objective.name!r} does not predict every token of a text.")
    tokens = store.open_store(section, say, bundle.tokenizer)
    planned = lambda split: windows.planned(tokens.parts, split, section, goal.length(context))
    train = [mine for part, mine in zip(tokens.parts, planned("train"), strict=True) if part.weight]
    shown = batches.spread(train, goal.shape, bundle.config.seed, heldout.COUNTED)
    counts = heldout.counted(shown, bundle.config.model)
    run_model = forward(Transformer(bundle.config.model))
    parts = [(part.name, part.valid.bytes) for part in tokens.parts]
    held_out = planned("valid")
    if stride:
        score = strided.scorer(run_model, bundle.config.objective, setting.logits, heldout.usual(counts))
        rows = strided.rows(tokens.parts, context, stride, section.batch_size, say)
    else:
        score = jax.jit(heldout.scorer(goal.loss, run_model, heldout.usual(counts)))
        rows = _packed(held_out, goal, bundle, section)
    found = heldout.measure(score, bundle.params, rows, parts, goal.is_whole)
    assert found is not None  # nobody asked it to stop
    specials = bundle.tokenizer.specials
    rows_of = lambda count: list(batches.spread(held_out, goal.shape, bundle.config.seed, count))
    return found | gaps.measure(bundle, rows_of, heldout.usual(counts, [specials.end, *specials.unwritten]))


def _readable(bundle: Bundle, context: int) -> Any:
    """Return the model section of a Bundle that can read text in such windows.

    Raises:
      Refusal: it cannot.
    """
    model = bundle.config.model
    if bundle.tokenizer is None:
        raise Refusal("the model has no tokenizer, so it cannot read text: put its tokenizer.json beside its config.")
    if context > model.context:
        raise Refusal(f"--context is {context}: the model was made for at most {model.context} tokens.")
    if bundle.tokenizer.size > model.vocabulary:
        raise Refusal(f"the tokenizer has {bundle.tokenizer.size} ids: the model has {model.vocabulary}.")
    return model


def _packed(units: Sequence[windows.Units], goal: Objective, bundle: Bundle, section: Any) -> Iterator[Any]:
    """Yield (part, Batch) of all units, as training validates."""
    rows = [batches.valid_rows(mine, goal.shape, bundle.config.seed) for mine in units]
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    order = batches.valid_batches(units, section.batch_size)

    def batch(number: int) -> tuple[int, Any]:
        part, k = order[number]
        return part, batches.batch(rows[part], k, section.batch_size, where)

    return batches.prefetched(batch, 0, len(order))
