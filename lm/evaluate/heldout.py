"""A model and held-out batches in; loss, perplexity and bits per byte out."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from lm.batch import Batch


def measure(
    score: Callable[[Any, Batch], tuple[Any, Any]],
    params: Any,
    batches: Iterable[Batch],
    text_bytes: int,
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return loss (nats per token), perplexity, and bits per byte (nats / ln 2 / bytes of the scored text).

    Args:
      score: (params, batch) → (sum of losses, sum of weights), compiled.
      params: the model's parameters.
      batches: every token of the text once.
      text_bytes: length of the text in UTF-8.
      is_stopping: asked between batches; when it says so, None is returned.
    """
    nats = tokens = 0.0
    pending: list[tuple[Any, Any]] = []
    for batch in batches:
        pending.append(score(params, batch))
        if len(pending) > 1:  # one is computed while the one before is read
            total, weight = jax.device_get(pending.pop(0))
            nats, tokens = nats + float(total), tokens + float(weight)
        if is_stopping():
            return None
    for total, weight in jax.device_get(pending):
        nats, tokens = nats + float(total), tokens + float(weight)
    loss = nats / tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": nats / math.log(2) / text_bytes,
    }
