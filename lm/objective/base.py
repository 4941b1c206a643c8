"""What an objective is: how a row is shaped on the host, and how it is scored on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lm.batch import Batch
from lm.objective.losses import Logits, Rows, logits_of
from lm.text.tokenizer import Specials, Tokenizer

# forward(params, batch, key) → the model's Output, of which hidden, unembed, unembed_bias and routing are read here;
# the key is for dropout, None for none.
Forward = Callable[[Any, Batch, Any], Any]


class Setting(NamedTuple):
    """What an objective needs to know of the model and of the tokenizer.

    logits: how they come about. architecture: as model.architecture names it. context: tokens that the model reads
    at once. specials: ids with a meaning of their own. head: as model.head names it. tokenizer: text ↔ ids, for
    objectives that know texts.
    """

    logits: Logits
    architecture: str
    context: int
    specials: Specials
    head: str = "language"
    tokenizer: Tokenizer | None = None


def setting_of(model, tokenizer: Tokenizer) -> Setting:
    """Return the Setting of a model and a tokenizer; `model` is config.model, resolved and bound."""
    return Setting(logits_of(model), model.architecture, model.context, tokenizer.specials, model.head, tokenizer)


def placed(setting: Setting, by_rows: Callable) -> Setting:
    """Return the setting of a model on a mesh: by_rows runs a function on each device's rows, as Logits has it."""
    return setting._replace(logits=setting.logits._replace(by_rows=by_rows))


class Objective(NamedTuple):
    """A few pure values from which data, step and evaluation take what they need.

    length: context → tokens that one row consumes after its first; of a pair nothing.
    shape: (window or pair, key) → one row of each Batch field, on the host; `key` is (seed, sample), for a generator.
    loss: (forward, params, batch, key) → (sum of weighted losses in nats, sum of weights, Rows), where Rows are
      each row's sums, whatever the loss adds to them. Without a key, nothing is added, and the likeliest ids are
      compared with the targets: that is how a model is evaluated.
    is_whole: whether every token of a text, or of a pair's target, is a target once, so that losses are the text's.
    unit: what a row is shaped from: "text", a Window of length(context) + 1 tokens; or "pair", a Pair of texts.
    """

    length: Callable[[int], int]
    shape: Callable[[Any, Any], Batch]
    loss: Callable[..., tuple[Any, Any, Rows]]
    is_whole: bool = False
    unit: str = "text"
