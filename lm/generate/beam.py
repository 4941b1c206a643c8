"""Prompts in, of each the likeliest texts that a search over several at once finds out.

P prompts have W beams each, side by side in B = P·W rows, and N candidates of what the beams may become.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.generate import decode, samplers
from lm.generate.method import Ready, See, Written, padded, rounded, said
from lm.model import cache as caches

_CHUNK = 32  # steps between two looks from the host
_MOST = 1e9  # that a token adds to a sum, or takes from it


class Rule(NamedTuple):
    """When a search ends, traced. limits: int32 `(P,)`, most tokens of a text. length_penalty: float32.

    is_first, is_never: whether sample.early_stopping is that.
    """

    limits: Any
    length_penalty: Any
    is_first: Any
    is_never: Any


class Candidates(NamedTuple):
    """The likeliest ways on, best first, each `(P, N)`. sums: of log-probabilities, adjusted; -inf: there is none.

    beams: which of the prompt's they go on from, and with which of the tokens.
    """

    sums: Any
    beams: Any
    tokens: Any


class Ended(NamedTuple):
    """The best texts that have ended, best first. ids, logs: `(P, W, S)`, as in a Reading. lengths: `(P, W)`.

    scores: `(P, W)`; -inf where there is no text yet.
    """

    ids: Any
    logs: Any
    lengths: Any
    scores: Any


class Search(NamedTuple):
    """Where a search stands: what the beams have read, what they may become, and what has ended.

    added: tokens that every beam has added. is_done: `(P,)`.
    """

    reading: decode.Reading
    candidates: Candidates
    ended: Ended
    added: Any
    is_done: Any


def search(ready: Ready, prompts: list[list[int]], section: Any, see: See) -> list[Written]:
    """Return the best `section.sequences` texts of every prompt, best first, those of one prompt side by side.

    As Transformers does it: at every step a prompt's beams and their next tokens are ranked by the sum of their
    log-probabilities; of the best W those that end are kept with their score, sum / length ** length_penalty, and the
    best W that do not end go on. A text ends with an end, a stop string, its last token, or the context. Where fewer
    texts are possible than are asked for, the last stands for the others too. `see` is shown texts that are whole.
    """
    state, rule = _begun(ready, prompts, section)
    settings = samplers.settings(section, ready.tokenizer)
    is_stopped_PN, count = np.zeros(state.candidates.sums.shape, bool), 1 if section.stop else _CHUNK
    while not np.all(jax.device_get(state.is_done)):
        if section.stop:
            is_stopped_PN = _are_stopped(ready, prompts, state, section.stop)
        state = advance(ready.model, ready.params, state, is_stopped_PN, settings, rule, count)
    return _written(ready, prompts, jax.device_get(state.ended), section.sequences, see)


def _begun(ready: Ready, prompts: list[list[int]], section: Any) -> tuple[Search, Rule]:
    context, longest = ready.model.config.context, max(map(len, prompts))
    heads = np.asarray(_heads(ready, prompts))
    state = begin(
        ready.model,
        ready.params,
        *padded(prompts, rounded(longest, context)),
        ready.tokenizer.specials.start,
        samplers.settings(section, ready.tokenizer),
        slots=rounded(int(max(heads)) + section.max_new_tokens, context),
        has_prefix=ready.has_prefix,
        cache_dtype=ready.cache_dtype,
        beams=section.beams,
        kept=max(2, 1 + len(ready.tokenizer.ends)) * section.beams,
    )
    limits = np.minimum(section.max_new_tokens, context - heads).astype(np.int32)
    is_first, is_never = (np.bool_(section.early_stopping == name) for name in ("first", "never"))
    return state, Rule(limits, np.float32(section.length_penalty), is_first, is_never)


def _heads(ready: Ready, prompts: list[list[int]]) -> list[int]:
    """Return how many ids stand before each text."""
    return [1 if ready.is_answering else len(prompt) for prompt in prompts]


@partial(jax.jit, static_argnums=0, static_argnames=("slots", "has_prefix", "beams", "kept", "cache_dtype"))
def begin(model, params, ids_PT, lengths_P, start, settings, *, beams, kept, **how) -> Search:
    """Read prompts and find what may follow each: decode.prefill's arguments, beams a prompt, candidates that are kept.

    Each end takes up to as many candidates as there are beams, and there must be enough others.
    """
    count = len(lengths_P)
    reading = decode.prefill(model, params, ids_PT, lengths_P, start, copies=beams, **how)
    reading = _normalised(reading)
    alone_W = jnp.where(jnp.arange(beams) > 0, -jnp.inf, jnp.float32(0))  # since as yet all are the same
    sums_PW = jnp.broadcast_to(alone_W[None], (count, beams))
    shape = (count, beams, how["slots"])
    nothing = Ended(
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(shape[:2], jnp.int32),
        jnp.full(shape[:2], -jnp.inf, jnp.float32),
    )
    candidates = _candidates(reading, sums_PW, settings, kept)
    return Search(reading, candidates, nothing, jnp.int32(0), jnp.zeros(count, bool))


@partial(jax.jit, static_argnums=0, donate_argnames="state")
def advance(model, params, state: Search, is_stopped_PN, settings: samplers.Settings, rule: Rule, count) -> Search:
    """Add up to `count` tokens to the beams of every prompt that is not done.

    Args:
      model: the Transformer. params: its parameters, ready.
      state: donated.
      is_stopped_PN: which of the candidates end, whatever their token; where any does, the count is 1.
    """

    def is_on(carry):
        number, state = carry
        return (number < count) & ~jnp.all(state.is_done)

    def step(carry):
        number, state = carry
        return number + 1, _step(model, params, state, is_stopped_PN, settings, rule)

    return jax.lax.while_loop(is_on, step, (0, state))[1]


def _step(model, params, state: Search, is_stopped_PN, settings, rule: Rule) -> Search:
    """Return the search with candidates taken: those that end are kept, others read."""
    added, sums_PN, tokens_PN = state.added + 1, state.candidates.sums, state.candidates.tokens
    is_end_PN = jnp.any(tokens_PN[:, :, None] == settings.ends[None, None], axis=-1) | is_stopped_PN
    is_end_PN |= (added >= rule.limits)[:, None]
    ended = _with_new(state, is_end_PN, rule)
    width = ended.scores.shape[1]
    sums_PW, best_PW = jax.lax.top_k(jnp.where(is_end_PN, -jnp.inf, sums_PN), width)
    rows_B, tokens_B = (jnp.take_along_axis(of_PN, best_PW, axis=1).reshape(-1) for of_PN in (_rows(state), tokens_PN))
    is_done_P = state.is_done | _is_done(sums_PW[:, 0], ended.scores, added, rule)
    old = state.reading
    reading = decode.Reading(
        caches.picked(old.cache, rows_B),
        jax.tree.map(lambda leaf: leaf[rows_B], old.text),
        old.scores[rows_B],
        old.logits[rows_B],
        jnp.repeat(is_done_P, width),
    )
    reading = _normalised(decode.append(model, params, reading, tokens_B, settings))
    candidates = _candidates(reading, sums_PW, settings, sums_PN.shape[1])
    return Search(reading, candidates, ended, added, is_done_P)


def _normalised(reading: decode.Reading) -> decode.Reading:
    """Return the reading with logits that are log-probabilities, which add up along a beam."""
    return reading._replace(logits=jax.nn.log_softmax(reading.logits, axis=-1))


def _candidates(reading: decode.Reading, sums_PW, settings, kept: int) -> Candidates:
    """Return the best of all next tokens of all beams of each prompt."""
    logits_BV = samplers.adjusted(reading.logits, reading.text, settings)
    logits_BV = jnp.where(logits_BV > -jnp.inf, jnp.clip(logits_BV, -_MOST, _MOST), -jnp.inf)
    count, vocabulary = len(sums_PW), logits_BV.shape[1]
    sums_PX = (sums_PW.reshape(-1)[:, None] + logits_BV).reshape(count, -1)
    sums_PN, places_PN = jax.lax.top_k(sums_PX, kept)
    return Candidates(sums_PN, places_PN // vocabulary, places_PN % vocabulary)


def _rows(state: Search):
    """Return the rows `(P, N)` that the candidates go on from."""
    count, width = state.ended.scores.shape
    return jnp.arange(count)[:, None] * width + state.candidates.beams


def _with_new(state: Search, is_end_PN, rule: Rule) -> Ended:
    """Return the best of what has ended and of what does now, which is the first W candidates if at all."""
    reading, width = state.reading, state.ended.scores.shape[1]
    rows_PW, tokens_PW, sums_PW = _rows(state)[:, :width], state.candidates.tokens[:, :width], state.candidates.sums
    scores_PW = sums_PW[:, :width] / _divisor(state.added + 1, rule)
    scores_PW = jnp.where(is_end_PN[:, :width] & ~state.is_done[:, None], scores_PW, -jnp.inf)
    lengths_PW = reading.text.lengths[rows_PW]
    here = (*jnp.indices(rows_PW.shape), lengths_PW)
    new = Ended(
        reading.text.ids[rows_PW].at[here].set(tokens_PW),
        reading.scores[rows_PW].at[here].set(reading.logits[rows_PW, tokens_PW]),
        lengths_PW + 1,
        scores_PW,
    )
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), state.ended, new)
    best_PW = jax.lax.top_k(both.scores, width)[1]
    return jax.tree.map(lambda leaf: leaf[jnp.arange(len(leaf))[:, None], best_PW], both)


def _is_done(best_P, scores_PW, added, rule: Rule):
    """Return which prompts' searches end, given the sum of the best beam that goes on and the scores of what ended.

    As Transformers' early_stopping True (first), False (likely) and "never"; a beam's best future score is only
    guessed, unless by never, of sums that cannot grow.
    """
    length = jnp.where(rule.is_never & (rule.length_penalty > 0), rule.limits, added)
    worst_P = scores_PW[:, -1]
    is_full_P = worst_P > -jnp.inf
    return (best_P / _divisor(length, rule) <= worst_P) | (rule.is_first & is_full_P) | (added >= rule.limits)


def _divisor(length, rule: Rule):
    return length.astype(jnp.float32) ** rule.length_penalty


def _are_stopped(ready: Ready, prompts: list[list[int]], state: Search, stops: tuple[str, ...]) -> np.ndarray:
    """Return which candidates of prompts that are not done have a stop string, `(P, N)`."""
    (sums, beams, tokens), ids, is_done, added = jax.device_get(
        (state.candidates, state.reading.text.ids, state.is_done, state.added)
    )
    ids, found = ids.reshape(len(prompts), -1, ids.shape[1]), np.zeros(sums.shape, bool)
    heads = _heads(ready, prompts)
    for index, number in np.argwhere(~is_done[:, None] & (sums > -np.inf)):
        begun = ids[index, beams[index, number], heads[index] : heads[index] + added]
        text = [*begun.tolist(), int(tokens[index, number])]
        known = () if ready.is_answering else tuple(prompts[index])
        found[index, number] = said(ready.tokenizer, text, known, stops)[1]
    return found


def _written(ready: Ready, prompts: list[list[int]], ended: Ended, sequences: int, see: See) -> list[Written]:
    """Return what has ended as texts of the prompts."""
    written = []
    for index, head in enumerate(_heads(ready, prompts)):
        last = int(np.sum(ended.scores[index] > -np.inf)) - 1
        for place in (min(number, last) for number in range(sequences)):
            new = slice(head, ended.lengths[index, place])
            tokens = ended.ids[index, place, new].tolist()
            is_stopped = see(len(written), tokens)
            reason = "stop" if tokens[-1] in ready.tokenizer.ends else "stop_string" if is_stopped else "length"
            numbers = {"score": float(ended.scores[index, place])}
            written.append(Written(tokens, ended.logs[index, place, new].tolist(), reason, numbers))
    return written
