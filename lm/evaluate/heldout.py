"""A model and held-out batches in; loss, perplexity, accuracy, bits per byte out, of all text and of each source."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.batch import Batch

COUNTED = 512  # rows of training in which the most frequent target is looked for


class Sums(NamedTuple):
    """What is summed over targets, each times its weight.

    nats: −log p. tokens: 1. correct: whether it is the likeliest. usual: whether it is the one most frequent in
    training, which a model that looks at nothing would say.
    """

    nats: Any
    tokens: Any
    correct: Any
    usual: Any


def counted(rows: Iterable[Batch], section: Any) -> np.ndarray:
    """Return how often each id, or class, is a target in these rows; section is config.model, bound."""
    counts = np.zeros(section.labels or section.vocabulary)
    for row in rows:
        counts += np.bincount(row.targets, row.weights, len(counts))
    return counts


def usual(counts: np.ndarray, but: Sequence[int] = ()) -> int:
    """Return the most frequent of all targets but some."""
    return int(np.argmax(np.where(np.isin(np.arange(len(counts)), but), -1, counts)))


def scorer(loss: Callable[..., Any], forward: Callable[..., Any], usual: int) -> Callable[[Any, Batch], Sums]:
    """Return (params, batch) → Sums of an objective's loss; `usual` is the most frequent target."""

    def score(params: Any, batch: Batch) -> Sums:
        total, weight, rows = loss(forward, params, batch, None)
        return Sums(total, weight, jnp.sum(rows.correct), jnp.sum(batch.weights * (batch.targets == usual)))

    return score


def measure(
    score: Callable[[Any, Batch], Sums],
    params: Any,
    batches: Iterable[tuple[int, Batch]],
    parts: Sequence[tuple[str, int]],
    is_whole: bool,
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return loss (nats per target), perplexity, accuracy and baseline_accuracy; of several parts also NAME/loss.

    And, where every token of the text is a target, bits_per_byte (nats / ln 2 / bytes of the scored text).

    Args:
      score: (params, batch) → Sums, of all rows together or of each, compiled.
      params: the model's parameters.
      batches: every row once, each batch with the index of its part.
      parts: name of each part, and length of its text in UTF-8.
      is_whole: whether every token is a target.
      is_stopping: asked between batches; when it says so, None is returned.
    """
    sums = np.zeros((len(parts), len(Sums._fields)))
    pending: list[tuple[int, Any]] = []

    def read() -> None:
        part, found = pending.pop(0)
        sums[part] += [np.sum(value, dtype=np.float64) for value in jax.device_get(found)]

    for part, batch in batches:
        pending.append((part, score(params, batch)))
        if len(pending) > 1:  # one is computed while the one before is read
            read()
        if is_stopping():
            return None
    while pending:
        read()
    nats, tokens, correct, usual = sums.sum(axis=0).tolist()
    loss = nats / tokens
    values = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "accuracy": correct / tokens,
        "baseline_accuracy": usual / tokens,
    }
    if is_whole:
        values["bits_per_byte"] = nats / math.log(2) / sum(text_bytes for _, text_bytes in parts)
    if len(parts) > 1:
        for (name, text_bytes), (total, count, *_) in zip(parts, sums.tolist(), strict=True):
            values[f"{name}/loss"] = total / count
            if is_whole:
                values[f"{name}/bits_per_byte"] = total / math.log(2) / text_bytes
    return values
