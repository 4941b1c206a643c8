"""A mixture of denoisers: each sample is corrupted in one of several ways (UL2)."""

from lm.config.objective import denoisers
from lm.objective.base import Objective, Setting
from lm.objective.corruption import Noise
from lm.objective.span import denoising


def mixture(section, setting: Setting) -> Objective:
    """Return the mixture of denoisers (Tay et al. 2022, arXiv 2205.05131, §3.1.2 and table 1).

    Few and short spans (R), many or long ones (X), and one span at the end (S), which is a prefix to go on from. All
    read windows of one length, the longest that fits however they are corrupted.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """
    found = denoisers(section.denoisers)
    noises = [Noise(rate, length) for rate, length, _ in found]
    return denoising(noises, [weight for *_, weight in found], section, setting)
