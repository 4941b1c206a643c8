"""What an objective is: how a row is shaped on the host, and how it is scored on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lm.batch import Batch

# forward(params, batch, key) → (hidden_BTD, unembed_DV); the key is for dropout, None for none.
Forward = Callable[[Any, Batch, Any], tuple[Any, Any]]


class Objective(NamedTuple):
    """A few pure values from which data, step and evaluation take what they need.

    length: context → tokens that one row consumes after its first.
    shape: (window, key) → one row of each Batch field, on the host; `key` is (seed, sample), for a generator.
    loss: (forward, params, batch, key) → (sum of weighted losses in nats, sum of weights, rows), where rows are
      each row's sums of −log p(target) and of weights, `(B,)`, whatever the loss adds to it. Without a key, nothing
      is added: that is how a model is evaluated.
    """

    length: Callable[[int], int]
    shape: Callable[[Any, Any], Batch]
    loss: Callable[..., tuple[Any, Any, tuple[Any, Any]]]
