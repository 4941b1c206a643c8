"""Next-token prediction: every token from those before it in its record."""

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting


def causal(section, setting: Setting) -> Objective:
    """Return the objective of a decoder: maximum likelihood of the next token.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """

    def shape(window, key) -> Batch:
        return Batch(
            inputs=window.ids[:-1],
            targets=window.ids[1:],
            weights=window.is_scored[1:].astype(np.float32),
            segments=window.segments[:-1],
            positions=window.positions[:-1],
            source=np.int32(window.source),
        )

    return Objective(
        length=lambda context: context, shape=shape, loss=losses.loss(section, setting.logits), is_whole=True
    )
