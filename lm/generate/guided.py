"""Prompts and a reward in; texts of high reward, and how far they leave the model, out."""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np

from lm.generate import divergence
from lm.generate.method import Ready, See, Written, said
from lm.generate.reward import load
from lm.generate.rows import Rows
from lm.generate.sampling import ending, sample, stopped

_CHUNK = 8  # tokens added between two looks for a stop string

Tell = Callable[[int, list[int]], tuple[str, bool]]  # (row, its tokens) → (text to reward, whether a stop ends it)


def best_of(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return, of every prompt's `section.candidates` texts, the `section.sequences` of highest reward, best first.

    numbers: reward; mean_reward, of all candidates; kl and kl_bound, from the model's own draws with the same settings
    (divergence.ranked, ranked_bound). Of equal rewards the first drawn is taken.
    """
    each, reward = section.candidates, load(section.reward)
    tell = _teller(ready, prompts, each, section.stop)
    many = ml_collections.FrozenConfigDict(section.to_dict() | {"sequences": each})
    drawn = sample(ready, prompts, many, lambda row, tokens: bool(section.stop) and tell(row, tokens)[1])
    written: list[Written] = []
    for first in range(0, len(drawn), each):
        rewards = np.array([reward(tell(row, drawn[row].tokens)[0]) for row in range(first, first + each)])
        for rank, place in enumerate(np.argsort(-rewards, kind="stable")[: section.sequences], 1):
            kl, bound = divergence.ranked(rewards, rank), divergence.ranked_bound(each, rank)
            chosen = drawn[first + place]
            see(len(written), chosen.tokens)
            written.append(chosen._replace(numbers=_numbers(rewards, place, kl, bound)))
    return written


def stepwise(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return `section.sequences` texts of every prompt, which are chosen while they grow.

    Every `section.reward_every` tokens, one of `section.candidates` ways on, drawn by the model, is drawn in proportion
    to exp(reward of the text so far / section.reward_scale): blockwise, as Mudgal et al. 2024, arXiv 2310.17022, who
    take the best. One that has ended is a way on, too.

    numbers: reward; mean_reward, of the candidates for the last choice; kl and kl_bound, from the model's own draws
    with the same settings, summed over the choices, as the chain rule has it (divergence.drawn, drawn_bound).
    """
    each, reward = section.candidates, load(section.reward)
    copies = section.sequences * each
    rows, tell = Rows(ready, prompts, section, copies), _teller(ready, prompts, copies, section.stop)
    reasons = [""] * len(rows.added)
    numbers = {first: _numbers(np.zeros(each), 0, 0.0, 0.0) for first in range(0, len(reasons), each)}
    until = 0
    while "" in reasons:
        until = min(until + section.reward_every, section.max_new_tokens)
        texts = [first for first in numbers if not reasons[first]]
        _grow(ready, rows, reasons, until, section, tell)
        taken = np.arange(len(reasons))
        for first in texts:
            rewards = np.array([reward(tell(row, rows.added[row])[0]) for row in range(first, first + each)])
            with np.errstate(over="ignore"):
                scores = (rewards - rewards.max()) / section.reward_scale
            draws = np.random.default_rng((section.seed, first // each % section.sequences, until))
            place = draws.choice(each, p=divergence.weights(scores))
            taken[first : first + each] = first + place
            kl, bound = (numbers[first][name] for name in ("kl", "kl_bound"))
            kl, bound = kl + divergence.drawn(scores), bound + divergence.drawn_bound(scores)
            numbers[first] = _numbers(rewards, place, kl, bound)
        rows.take(taken)
        reasons = [reasons[row] for row in taken]
        for first in texts:
            see(first // each, rows.added[first])
    return [Written(rows.added[first], rows.scores[first], reasons[first], numbers[first]) for first in numbers]


GUIDANCES = {"best_of": best_of, "stepwise": stepwise}


def _grow(ready: Ready, rows: Rows, reasons: list[str], until: int, section: Any, tell: Tell) -> None:
    """Add to every row that has not ended until it has so many tokens; put down why those end that do."""
    while grown := [row for row, why in enumerate(reasons) if not why and len(rows.added[row]) < until]:
        is_over = np.ones(len(reasons), bool)
        is_over[grown] = False
        known = [len(tokens) for tokens in rows.added]
        rows.add(min(_CHUNK, *(until - len(rows.added[row]) for row in grown)), is_over)
        for row in grown:
            tokens = rows.added[row]
            is_last = len(tokens) >= section.max_new_tokens or (ready.is_answering and rows.is_full[row])
            stop = stopped(lambda some, row=row: tell(row, some)[1], tokens, known[row]) if section.stop else None
            rows.added[row], rows.scores[row] = tokens[:stop], rows.scores[row][:stop]
            reasons[row] = ending(rows.added[row], ready.tokenizer.ends, stop is not None, is_last)


def _teller(ready: Ready, prompts: list[list[int]], copies: int, stops: tuple[str, ...]) -> Tell:
    """Return what tells the text that a reward is for: prompt and answer; of an encoder_decoder the answer alone.

    Neither the stop string is in it nor what opens and ends a text.
    """
    tokenizer, opening = ready.tokenizer, list(ready.tokenizer.opening)
    is_opened = lambda prompt: prompt[: len(opening)] == opening
    known = [() if ready.is_answering else prompt for prompt in prompts]
    before = [
        "" if ready.is_answering else tokenizer.decode(prompt[len(opening) if is_opened(prompt) else 0 :])
        for prompt in prompts
    ]

    def tell(row: int, tokens: list[int]) -> tuple[str, bool]:
        text, is_stopped = said(tokenizer, tokens, known[row // copies], stops)
        return before[row // copies] + text, is_stopped

    return tell


def _numbers(rewards: np.ndarray, place: int, kl: float, bound: float) -> dict[str, float]:
    return {"reward": float(rewards[place]), "mean_reward": float(rewards.mean()), "kl": kl, "kl_bound": bound}
