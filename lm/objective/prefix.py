"""Prefix language modelling: a record's beginning is seen at once, and all tokens behind it are predicted in turn."""

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting


def prefix(section, setting: Setting) -> Objective:
    """Return the prefix language model of a decoder (Raffel et al. 2020, arXiv 1910.10683, §3.2.1 and §3.2.3).

    Every record of a window is split anew for every sample; all splits that leave something to predict are equally
    likely.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """

    def shape(window, key) -> Batch:
        segments, positions = window.segments[:-1], window.positions[:-1]
        sizes = np.bincount(segments, minlength=1)
        splits = np.random.default_rng(key).integers(1, np.maximum(sizes, 1) + 1)[segments]
        return Batch(
            inputs=window.ids[:-1],
            targets=window.ids[1:],
            weights=(window.is_scored[1:] & (positions + 1 >= splits)).astype(np.float32),
            segments=segments,
            positions=positions,
            source=np.int32(window.source),
            prefix=(positions < splits) & (segments > 0),
        )

    return Objective(length=lambda context: context, shape=shape, loss=losses.loss(section, setting.logits))
