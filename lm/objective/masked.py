"""Masked tokens: a few of a window are hidden, and predicted from all others of their record (an encoder)."""

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting
from lm.refusal import Refusal


def masked(section, setting: Setting) -> Objective:
    """Return the masked language model of BERT (Devlin et al. 2019, arXiv 1810.04805, §3.1 and appendix A.1).

    A share `mask_rate` of a window's tokens is chosen, as a rounded count, at least one, as BERT's own code does; each
    becomes the mask token, or (mask_random) any token that a text may have, or (mask_kept) stays. Chosen anew for
    every sample: RoBERTa's dynamic masking (Liu et al. 2019, arXiv 1907.11692, §4.1). End-of-text is never chosen.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """
    specials = setting.specials
    if specials.mask is None:
        raise Refusal("objective.name is 'masked', but data.tokenizer has no mask token: name it in data.mask_token.")
    ordinary = np.setdiff1d(np.arange(specials.size, dtype=np.int32), [specials.end, *specials.unwritten])
    most = _count(section.mask_rate, setting.context)

    def shape(window, key) -> Batch:
        generator = np.random.default_rng(key)
        places = np.flatnonzero(window.is_scored & ~np.isin(window.ids, [specials.end, *specials.unwritten]))
        chosen = generator.permutation(places)[: _count(section.mask_rate, len(places))]
        kinds = generator.random(len(chosen))
        strangers = generator.choice(ordinary, len(chosen))
        inputs, weights = window.ids.copy(), np.zeros(len(window.ids), np.float32)
        inputs[chosen] = np.where(kinds < section.mask_random, strangers, specials.mask)
        is_kept = kinds >= 1 - section.mask_kept
        inputs[chosen[is_kept]] = window.ids[chosen[is_kept]]
        weights[chosen] = 1
        return Batch(
            inputs=inputs,
            targets=window.ids,
            weights=weights,
            segments=window.segments,
            positions=window.positions,
            source=np.int32(window.source),
        )

    return Objective(length=lambda context: context - 1, shape=shape, loss=losses.loss(section, setting.logits, most))


def _count(rate: float, tokens: int) -> int:
    """Return how many of some tokens are chosen."""
    return min(tokens, max(1, round(rate * tokens)))
