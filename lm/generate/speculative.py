"""Prompts in, texts out, several tokens a pass: a draft guesses them, and the model reads all of its guesses at once.

What is kept of them is drawn so that the texts have exactly the model's own probabilities, as the settings make them:
Leviathan et al. 2023, arXiv 2211.17192, §2.3 and appendix A.1; Chen et al. 2023, arXiv 2302.01318, §2.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.generate import decode, lookup, samplers, sampling
from lm.generate.method import Ready, See, Written, padded, rounded
from lm.generate.samplers import Text
from lm.refusal import Refusal


class Reading(NamedTuple):
    """What has been read and written so far, but for each text's last token, which the next pass reads.

    cache, text, scores, is_over: as decode.Reading has them. draft: the draft model's cache; or what stands before the
    texts for looking up, int32 ids `(B, U)`, -1 for none.
    """

    cache: Any
    text: Text
    scores: Any
    is_over: Any
    draft: Any


def speculate(
    ready: Ready, prompts: list[list[int]], section: Any, see: See, draft: Ready | None = None
) -> list[Written]:
    """Return what sampling.sample draws: `section.sequences` texts of every prompt.

    Its numbers are `passes` of the model, and how many guesses were `accepted` in one, on average.

    Args:
      draft: the model that guesses; None: they are looked up in prompt and text.
    """
    ahead = section.draft_tokens + 1
    context = ready.model.config.context
    counts: list[Any] = [np.zeros((2, len(prompts) * section.sequences), np.int32)]

    def read(rows: list[list[int]], count: int, copies: int, begun: Any = None) -> Reading:
        first = sampling.read(ready, context, rows, count, copies, begun, ahead)
        if draft is not None:
            beside = sampling.read(draft, context, rows, count, copies, begun, ahead).cache
        else:
            sources = rows if ready.is_answering else [[] for _ in rows]
            ids, lengths = padded(sources, rounded(max(map(len, sources)), context))
            known = np.repeat(np.where(np.arange(ids.shape[1]) < lengths[:, None], ids, -1), copies, axis=0)
            beside = known + 0 * first.text.lengths[:, None]  # where the text lies: a first pass needs no other program
        return Reading(first.cache, first.text, first.scores, first.is_over, beside)

    models = (ready.model, ready.params, draft and draft.model, draft and draft.params)

    def extend(reading: Reading, keys: Any, settings: samplers.Settings, count: int) -> Reading:
        reading, counted = _extend(*models, reading, keys, settings, count, ahead=ahead)
        counts.append(counted)
        return reading

    written = sampling.write(ready, prompts, section, see, read, extend)
    passes, kept = np.sum(jax.device_get(counts), axis=0).tolist()
    numbers = [{"accepted": one / all_, "passes": all_} for one, all_ in zip(kept, passes, strict=True)]
    return [one._replace(numbers=more) for one, more in zip(written, numbers, strict=True)]


def check(ready: Ready, draft: Ready) -> None:
    """Refuse a draft whose tokens are not the model's."""
    if ready.is_answering != draft.is_answering:
        theirs, ours = draft.model.config.architecture, ready.model.config.architecture
        raise Refusal(f"sample.draft has the architecture {theirs!r}: it must be the model's, {ours!r}.")
    for index in range(max(ready.tokenizer.size, draft.tokenizer.size)):
        theirs, ours = draft.tokenizer.spelled(index), ready.tokenizer.spelled(index)
        if theirs != ours:
            raise Refusal(
                f"sample.draft has the token {theirs!r} where the model has {ours!r} (id {index}): both must have the "
                "same tokenizer, or sample.draft=lookup needs none."
            )


@partial(jax.jit, static_argnums=(0, 2), static_argnames="ahead", donate_argnames="reading")
def _extend(model, params, draft, draft_params, reading: Reading, keys, settings, count, *, ahead: int):
    """Return the reading with `count` tokens or more added to every row that is not done, and the counts.

    Args:
      model, draft: Transformers; draft None: guesses are looked up.
      keys: of the rows; what decides on a row's token number n comes from fold_in(its key, n) alone.
      ahead: tokens that the model reads in a pass: the text's last, and the guesses.

    Returns:
      The Reading; of each row passes, and guesses that were kept, int32 `(2, B)`.
    """
    begun_B = reading.text.lengths
    wants = lambda reading: ~decode.is_done(reading) & (reading.text.lengths - begun_B < count)

    def step(carry):
        reading, counts_2B = carry
        after, kept_B = _pass(model, params, draft, draft_params, reading, keys, settings, ahead)
        return after, counts_2B + jnp.stack([~decode.is_done(reading), kept_B]).astype(jnp.int32)

    counts_2B = jnp.zeros((2, len(begun_B)), jnp.int32)
    return jax.lax.while_loop(lambda carry: jnp.any(wants(carry[0])), step, (reading, counts_2B))


def _pass(model, params, draft, draft_params, reading: Reading, keys, settings, ahead: int):
    """Return the reading with at least one token added to every row that is not done, and how many were guessed."""
    text, is_done_B = reading.text, decode.is_done(reading)
    slots, vocabulary = text.ids.shape[1], model.config.vocabulary
    keys_BT3 = _keys(keys, (text.lengths - text.begun)[:, None] + jnp.arange(ahead)[None])
    if draft is None:
        beside, guesses_BG = reading.draft, lookup.guess(reading.draft, text, ahead - 1)
        guessed_BGV = jax.nn.one_hot(guesses_BG, vocabulary)
    else:
        beside, guesses_BG, guessed_BGV = _guess(
            draft, draft_params, vocabulary, reading.draft, text, keys_BT3[:, :-1, 0], settings
        )
    cache, logits_BTV = _read(model, params, reading.cache, _added(text, guesses_BG), -ahead, 0)
    wanted_BTV = _probabilities(logits_BTV, text, guesses_BG, settings)
    # Behind the last guess that there is room for, one token more is drawn.
    tests_B = jnp.minimum(ahead - 1, slots - 1 - text.lengths)
    kept_B, last_B = judge(keys_BT3[:, :, 1:], guesses_BG, guessed_BGV, wanted_BTV, tests_B, settings.temperature > 0)
    numbers_1T = jnp.arange(ahead)[None]
    tokens_BT = jnp.where(numbers_1T < kept_B[:, None], jnp.pad(guesses_BG, ((0, 0), (0, 1))), last_B[:, None])
    is_end_BT = jnp.any(tokens_BT[:, :, None] == settings.ends[None, None], axis=2)
    is_open_BT = jnp.cumsum(is_end_BT, axis=1) - is_end_BT == 0
    is_added_BT = (numbers_1T <= kept_B[:, None]) & is_open_BT & ~is_done_B[:, None]
    added_B = jnp.sum(is_added_BT, axis=1)
    places_BT = jnp.where(is_added_BT, text.lengths[:, None] + numbers_1T, slots)
    put = lambda old_BS, new_BT: old_BS.at[jnp.arange(len(old_BS))[:, None], places_BT].set(new_BT, mode="drop")
    scores_BT = decode.scored(logits_BTV, tokens_BT)
    is_over_B = reading.is_over | jnp.any(is_end_BT & is_added_BT, axis=1)
    text = text._replace(ids=put(text.ids, tokens_BT), lengths=text.lengths + added_B)
    return Reading(cache, text, put(reading.scores, scores_BT), is_over_B, beside), jnp.minimum(kept_B, added_B)


def judge(keys_BT2, guesses_BG, guessed_BGV, wanted_BTV, tests_B, is_drawn):
    """Return how many guesses of each row are kept, and the token drawn to follow those, int32 `(B,)` each.

    A guess is kept at the rate p/q, and the first that is not is replaced by a draw from what p is above q
    (Leviathan et al. 2023, §2.3): so each token has the probability p.

    Args:
      keys_BT2: for each place one that keeps and one that draws.
      guessed_BGV, wanted_BTV: probabilities q that guesses were drawn with, and p that are wanted; T = G + 1.
      tests_B: guesses that there are; the token behind these is drawn from p.
      is_drawn: False: the likeliest is taken, of a p and q that are sure.
    """
    count = guesses_BG.shape[1]
    of_guess = lambda shares: jnp.take_along_axis(shares[:, :count], guesses_BG[:, :, None], axis=2)[:, :, 0]
    at = lambda shares_BNV, place_B: jnp.take_along_axis(shares_BNV, place_B[:, None, None], axis=1)[:, 0]
    even_BG = jax.vmap(jax.vmap(jax.random.uniform))(keys_BT2[:, :-1, 0])
    is_kept_BG = even_BG * of_guess(guessed_BGV) < of_guess(wanted_BTV)
    is_kept_BG &= jnp.arange(count)[None] < tests_B[:, None]
    kept_B = jnp.sum(jnp.cumprod(is_kept_BG, axis=1), axis=1)
    wanted_BV = at(wanted_BTV, kept_B)
    rest_BV = jnp.maximum(wanted_BV - at(guessed_BGV, jnp.minimum(kept_B, count - 1)), 0)
    is_rest_B1 = (kept_B < tests_B)[:, None] & jnp.any(rest_BV > 0, axis=1, keepdims=True)  # rounding may leave none
    shares_BV = jnp.where(is_rest_B1, rest_BV, wanted_BV)
    keys_B = jnp.take_along_axis(keys_BT2[:, :, 1], kept_B[:, None], axis=1)[:, 0]
    return kept_B, _drawn(keys_B, jnp.log(shares_BV), is_drawn)


def _guess(draft, params, vocabulary: int, cache, text: Text, keys_BG, settings):
    """Return the draft's cache, its guesses, and the probabilities that they were drawn with, `(B, G, V)`."""

    def step(carry, keys_B):
        cache, text = carry
        # The last but one too: after a pass whose guesses were all kept, the last of them is still to be read.
        cache, logits_B2V = _read(draft, params, cache, text, -2, 0)
        logits_BV = logits_B2V[:, 1, :vocabulary]  # their tables may have more rows, or fewer, that are no token's
        missing = vocabulary - logits_BV.shape[1]
        logits_BV = jnp.pad(logits_BV, ((0, 0), (0, missing)), constant_values=-jnp.inf)
        logs_BV = samplers.log_probabilities(logits_BV, text, settings)
        tokens_B = _drawn(keys_B, logs_BV, settings.temperature > 0)
        return (cache, _added(text, tokens_B[:, None])), (tokens_B, jnp.exp(logs_BV))

    (cache, _), (guesses_GB, shares_GBV) = jax.lax.scan(step, (cache, text), keys_BG.swapaxes(0, 1))
    return cache, guesses_GB.swapaxes(0, 1), shares_GBV.swapaxes(0, 1)


def _read(model, params, cache, text: Text, first: int, stop: int):
    """Return the cache and the logits of what follows the text's places from `first` on, counted from its end.

    What lies outside the slots is read at the first or the last of them, once more.
    """
    places_BT = jnp.clip(text.lengths[:, None] + jnp.arange(first, stop)[None], 0, text.ids.shape[1] - 1)
    return decode.look(model, params, jnp.take_along_axis(text.ids, places_BT, axis=1), places_BT, cache)


def _probabilities(logits_BTV, text: Text, guesses_BG, settings):
    """Return the probabilities of a draw at every place, the guesses before it being in the text, `(B, T, V)`."""
    rows, count, vocabulary = logits_BTV.shape
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), _added(text, guesses_BG))
    lengths_N = (text.lengths[:, None] + jnp.arange(count)[None]).reshape(-1)
    logits_NV = logits_BTV.reshape(rows * count, vocabulary)
    logs_NV = samplers.log_probabilities(logits_NV, many._replace(lengths=lengths_N), settings)
    return jnp.exp(logs_NV).reshape(logits_BTV.shape)


def _added(text: Text, tokens_BN) -> Text:
    """Return the text with tokens at its end, of which those that it has no room for are dropped."""
    count = tokens_BN.shape[1]
    places_BN = text.lengths[:, None] + jnp.arange(count)[None]
    ids_BS = text.ids.at[jnp.arange(len(text.ids))[:, None], places_BN].set(tokens_BN, mode="drop")
    return text._replace(ids=ids_BS, lengths=text.lengths + count)


def _keys(keys_B, numbers_BT):
    """Return three keys for each numbered token of each row: to guess it, to keep it, to draw it."""
    one = lambda key, number: jax.random.split(jax.random.fold_in(key, number), 3)
    return jax.vmap(jax.vmap(one, (None, 0)))(keys_B, numbers_BT)


def _drawn(keys_B, logs_BV, is_drawn):
    """Return a token of each row, drawn, or else the likeliest."""
    draw = lambda: jax.vmap(samplers.draw_one)(keys_B, logs_BV).astype(jnp.int32)
    return jax.lax.cond(is_drawn, draw, lambda: jnp.argmax(logs_BV, axis=-1).astype(jnp.int32))
