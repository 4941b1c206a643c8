"""Pairs of texts: the target is predicted from the input."""

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting
from lm.objective.pairs import Task, across, beside


def seq2seq(section, setting: Setting) -> Objective:
    """Return the objective of pairs (Sutskever et al. 2014, arXiv 1409.3215; of decoders Radford et al. 2018).

    An encoder–decoder reads the input, and gives the target closed by end-of-text. A decoder reads both in a row, and
    is scored on the target alone. What is too long for the context is cut: of the target the end, which then is not
    closed; of the input an encoder's end, a decoder's beginning, since what stands next to the target is nearest.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """
    specials, context = setting.specials, setting.context

    def shape(pair, key) -> Batch:
        wanted = np.append(pair.target_ids, np.int32(specials.end))[:context]
        if setting.architecture == "encoder_decoder":
            return across([Task(pair.input_ids[: context - 1], wanted)], context, context, specials, pair.source)
        given = pair.input_ids if len(pair.input_ids) else np.array([specials.end], np.int32)
        given = given[-(context + 1 - len(wanted)) :]
        return beside([Task(given, wanted)], context, pair.source, section.prefix)

    return Objective(
        length=lambda context: 0, shape=shape, loss=losses.loss(section, setting.logits), is_whole=True, unit="pair"
    )
