"""Spans cut out of the text, to be given back in order: T5's objective, and what mixtures of its kind share."""

from collections.abc import Sequence

import numpy as np

from lm.batch import Batch
from lm.objective import losses
from lm.objective.base import Objective, Setting
from lm.objective.corruption import Noise, corrupted, counts, most
from lm.objective.pairs import Task, across, beside
from lm.refusal import Refusal


def span(section, setting: Setting) -> Objective:
    """Return span corruption (Raffel et al. 2020, arXiv 1910.10683, §3.1.4), with noise_rate and noise_length.

    Args:
      section: config.objective.
      setting: of model and tokenizer.
    """
    return denoising([Noise(section.noise_rate, section.noise_length)], [1.0], section, setting)


def denoising(noises: Sequence[Noise], weights: Sequence[float], section, setting: Setting) -> Objective:
    """Return the objective that restores a window's spans; each sample draws how it is corrupted.

    An encoder–decoder reads the corrupted text, as much as fills its context, and gives sentinel and span by turns. A
    decoder reads both in a row, the corrupted text as a prefix that it sees at once.

    Args:
      noises: how a window may be corrupted.
      weights: how often each is drawn, in any unit.
      section: config.objective.
      setting: of model and tokenizer.
    """
    specials, context = setting.specials, setting.context
    is_pair = setting.architecture == "encoder_decoder"
    tokens = _tokens(noises, context, is_pair)
    decoder = max(sum(counts(tokens, noise)) + 1 for noise in noises)
    spans = max(counts(tokens, noise)[1] for noise in noises)
    if len(specials.sentinels) < spans:
        raise Refusal(
            f"objective.name is {section.name!r}, and model.context is {context}: it needs {spans} sentinels, of which "
            f"data.tokenizer has {len(specials.sentinels)}; set data.sentinels, or name a tokenizer that has them."
        )
    shares = np.array(weights) / sum(weights)

    def room(tasks: Sequence[Task]) -> int:
        given, wanted = (sum(len(ids) for ids in part) for part in zip(*tasks, strict=True)) if tasks else (0, 0)
        if not is_pair:
            return context - given - wanted + len(tasks)
        over = given + len(tasks) - context
        return -over if over > 0 else decoder - wanted

    def shape(window, key) -> Batch:
        generator = np.random.default_rng(key)
        noise = noises[generator.choice(len(noises), p=shares)]
        tasks = corrupted(window, noise, generator, specials, room)
        if is_pair:
            return across(tasks, context, decoder, specials, window.source)
        return beside(tasks, context, window.source, has_prefix=True)

    return Objective(
        length=lambda context: _tokens(noises, context, is_pair) - 1,
        shape=shape,
        loss=losses.loss(section, setting.logits),
    )


def _tokens(noises: Sequence[Noise], context: int, is_pair: bool) -> int:
    """Return how many tokens of a single record fit into a row, however they are corrupted.

    One sentinel for each span in what is read, and one before it in what is given back; both are closed.
    """

    def fits(tokens: int) -> bool:
        sizes = [counts(tokens, noise) for noise in noises]
        if is_pair:
            return all(tokens - noisy + spans + 1 <= context >= noisy + spans + 1 for noisy, spans in sizes)
        return all(tokens + 2 * spans <= context for _, spans in sizes)

    if not fits(2):
        raise Refusal(f"model.context is {context}: that is too few tokens to cut a span out of a text; set it to 8.")
    return most(fits)
