"""Pairs of a text and the name of its class: the class is predicted from the text."""

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting
from lm.refusal import Refusal


def classify(section, setting: Setting) -> Objective:
    """Return the objective of a classifier: which of `labels` a text's target is.

    An encoder says it at the first token, which stands before the text (Devlin et al. 2019, arXiv 1810.04805, §3 and
    §4.1); a decoder at the end-of-text behind it (Radford et al. 2018, §3.2). Of a text that is too long an encoder
    reads the beginning, a decoder the end.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """
    specials, context, tokenizer = setting.specials, setting.context, setting.tokenizer
    classes: dict[tuple[int, ...], int] = {}
    for number, label in enumerate(section.labels):
        if (first := classes.setdefault(tuple(tokenizer.encode(label).tolist()), number)) != number:
            raise Refusal(
                f"objective.labels has {section.labels[first]!r} and {label!r}, which data.tokenizer makes the same "
                "tokens: name one of them otherwise."
            )
    is_encoder = setting.architecture == "encoder"

    def shape(pair, key) -> Batch:
        label = classes.get(tuple(pair.target_ids.tolist()))
        if label is None:
            raise Refusal(
                f"objective.labels is {section.labels}, but an example's target is "
                f"{tokenizer.decode(pair.target_ids)!r}: name every class there."
            )
        text, room = pair.input_ids, context - 1 - is_encoder
        text = text[:room] if is_encoder else text[max(0, len(text) - room) :]
        ids = np.concatenate([[specials.first] * is_encoder, text, [specials.end]]).astype(np.int32)
        place = 0 if is_encoder else len(ids) - 1
        inputs, targets, segments, positions = np.zeros((4, context), np.int32)
        inputs[: len(ids)], segments[: len(ids)], positions[: len(ids)] = ids, 1, np.arange(len(ids))
        weights = np.zeros(context, np.float32)
        targets[place], weights[place] = label, 1
        return Batch(inputs, targets, weights, segments, positions, np.int32(pair.source))

    return Objective(length=lambda context: 0, shape=shape, loss=losses.loss(section, setting.logits, 1), unit="pair")
