"""A model and held-out batches in; loss, perplexity and bits per byte out, of all text and of each source."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from lm.batch import Batch


def measure(
    score: Callable[[Any, Batch], tuple[Any, Any]],
    params: Any,
    batches: Iterable[tuple[int, Batch]],
    parts: Sequence[tuple[str, int]],
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return loss (nats per token), perplexity, and bits per byte (nats / ln 2 / bytes of the scored text).

    Of several parts also NAME/loss and NAME/bits_per_byte.

    Args:
      score: (params, batch) → (sum of losses, sum of weights), compiled.
      params: the model's parameters.
      batches: every token of the text once, each batch with the index of its part.
      parts: name of each part, and length of its text in UTF-8.
      is_stopping: asked between batches; when it says so, None is returned.
    """
    nats, tokens = [0.0] * len(parts), [0.0] * len(parts)
    pending: list[tuple[int, Any]] = []

    def read() -> None:
        part, sums = pending.pop(0)
        total, weight = jax.device_get(sums)
        nats[part], tokens[part] = nats[part] + float(total), tokens[part] + float(weight)

    for part, batch in batches:
        pending.append((part, score(params, batch)))
        if len(pending) > 1:  # one is computed while the one before is read
            read()
        if is_stopping():
            return None
    while pending:
        read()
    loss = sum(nats) / sum(tokens)
    values = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": sum(nats) / math.log(2) / sum(text_bytes for _, text_bytes in parts),
    }
    if len(parts) > 1:
        for (name, text_bytes), total, count in zip(parts, nats, tokens, strict=True):
            values[f"{name}/loss"] = total / count
            values[f"{name}/bits_per_byte"] = total / math.log(2) / text_bytes
    return values
