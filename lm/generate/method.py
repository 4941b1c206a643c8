"""What every way to write shares: a model that is ready, prompts as ids in; tokens, scores and why they end out."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from lm.config.objective import has_prefix
from lm.generate import prepare
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.tokenizer import Tokenizer
from lm.weights.bundle import Bundle

See = Callable[[int, list[int]], bool]  # (number of a text, its tokens so far) → whether it shall end here


class Ready(NamedTuple):
    """A model to write with.

    params: as prepare.ready gives them. has_prefix: it sees all of its prompt at once. weight_dtype, cache_dtype: as
    the sample section names them.
    """

    model: Transformer
    params: Any
    tokenizer: Tokenizer
    has_prefix: bool
    weight_dtype: str = "model"
    cache_dtype: str = "model"

    @property
    def is_answering(self) -> bool:
        """Whether an encoder reads the prompt."""
        return self.model.config.architecture == "encoder_decoder"


class Written(NamedTuple):
    """One text. tokens, logprobs: its ids, with the end if it was reached, and their natural logs under the model.

    finish_reason: "stop" (an end), "stop_string" (of sample.stop) or "length". numbers: what else a way found out.
    """

    tokens: list[int]
    logprobs: list[float]
    finish_reason: str
    numbers: Mapping[str, float] = MappingProxyType({})


def ready(bundle: Bundle, weight_dtype: str = "model") -> Ready:
    """Return a Bundle's model, ready, its weights held as sample.weight_dtype says.

    Raises:
      Refusal: it is none that writes text.
    """
    section = bundle.model.config
    if section.architecture == "encoder" or section.head not in ("language", "masked"):
        raise Refusal(
            f"model.architecture is {section.architecture!r} and model.head {section.head!r}: "
            "text is continued by a decoder whose head gives logits of ids."
        )
    if bundle.tokenizer is None:
        raise Refusal("the model has no tokenizer, so it reads no prompt: put its tokenizer.json beside its config.")
    if weight_dtype == "bfloat16":
        section = ml_collections.FrozenConfigDict(section.to_dict() | {"dtype": weight_dtype})
    params = prepare.ready(section, bundle.params, weight_dtype)
    return Ready(bundle.model.clone(config=section), params, bundle.tokenizer, has_prefix(bundle.config), weight_dtype)


def padded(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids padded on the right to one length, int32 `(B, length)`, and how many each row has."""
    ids = np.zeros((len(rows), length), np.int32)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids, np.asarray([len(values) for values in rows], np.int32)


def rounded(count: int, most: int) -> int:
    """Return a length from `count` on of which there are four between a power of two and the next, at most `most`.

    Programs are compiled for these lengths, so that there are few, and at most a quarter is read in vain.
    """
    step = max(4, 1 << max(0, (count - 1).bit_length() - 3))
    return min(most, max(16, -(-count // step) * step))


def said(tokenizer: Tokenizer, tokens: Sequence[int], known: Sequence[int], stops: Sequence[str]) -> tuple[str, bool]:
    """Return the tokens' text up to a stop string, behind the ids that are known, and whether there is one."""
    ends = tokenizer.ends
    text = tokenizer.decode([token for token in tokens if token not in ends], known)
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
