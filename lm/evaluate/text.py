"""A Bundle and a data section in; what the model makes of the section's held-out text, in its own tokens, out."""

from collections.abc import Callable
from typing import Any

import jax

from lm.data import batches, store, windows
from lm.evaluate import gaps, heldout
from lm.model.transformer import Transformer, forward
from lm.objective.base import setting_of
from lm.objective.catalog import objective
from lm.refusal import Refusal
from lm.weights.bundle import Bundle


def measure(bundle: Bundle, section: Any, context: int, say: Callable[[str], None]) -> dict[str, float]:
    """Return what heldout.measure does, of every held-out token once.

    Args:
      bundle: the model; its config says the objective.
      section: a data section; the tokenizer is the Bundle's, whatever the section says.
      context: tokens in a window.
      say: hears of the store that is built.

    Raises:
      Refusal: text, tokenizer or model are not for it.
    """
    model = bundle.config.model
    if bundle.tokenizer is None:
        raise Refusal("the model has no tokenizer, so it cannot read text: put its tokenizer.json beside its config.")
    if context > model.context:
        raise Refusal(f"--context is {context}: the model was made for at most {model.context} tokens.")
    if bundle.tokenizer.size > model.vocabulary:
        raise Refusal(f"the tokenizer has {bundle.tokenizer.size} ids: the model has {model.vocabulary}.")
    tokens = store.open_store(section, say, bundle.tokenizer)
    setting = setting_of(model, bundle.tokenizer)._replace(context=context)
    goal = objective(bundle.config.objective, setting)
    held_out = windows.planned(tokens.parts, "valid", section, goal.length(context))
    rows = [batches.valid_rows(mine, goal.shape, bundle.config.seed) for mine in held_out]
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    order = batches.valid_batches(held_out, section.batch_size)

    def batch(number: int) -> tuple[int, Any]:
        part, k = order[number]
        return part, batches.batch(rows[part], k, section.batch_size, where)

    run_model = forward(Transformer(model))
    train = windows.planned(tokens.parts, "train", section, goal.length(context))
    train = [mine for part, mine in zip(tokens.parts, train, strict=True) if part.weight]
    counts = heldout.counted(batches.spread(train, goal.shape, bundle.config.seed, heldout.COUNTED), model)
    score = jax.jit(heldout.scorer(goal.loss, run_model, heldout.usual(counts)))
    parts = [(part.name, part.valid.bytes) for part in tokens.parts]
    found = heldout.measure(score, bundle.params, batches.prefetched(batch, 0, len(order)), parts, goal.is_whole)
    assert found is not None  # nobody asked it to stop
    specials = bundle.tokenizer.specials
    rows_of = lambda count: list(batches.spread(held_out, goal.shape, bundle.config.seed, count))
    return found | gaps.measure(bundle, rows_of, heldout.usual(counts, [specials.end, *specials.unwritten]))
