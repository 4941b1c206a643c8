"""Logits and the text before them in, logits out: biases, bans, penalties. Logits are `(B, V)` float32.

Every number is traced. None makes a NaN of finite logits, and -inf, a token that cannot be, stays -inf.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST = np.finfo(np.float32).max / 4  # of a logit: two of them still differ by a number


class Text(NamedTuple):
    """What stands before the token that is drawn.

    ids: int32 `(B, S)`, prompts and what was added. begun, lengths: int32 `(B,)`, where that begins and ends.
    """

    ids: Any
    begun: Any
    lengths: Any


def biased(logits_BV, text: Text, phrases_NL, biases_N):
    """Add each bias to the last token of its phrase where the text ends with the others; -inf bans it.

    As Transformers' SequenceBiasLogitsProcessor and, of -inf, NoBadWordsLogitsProcessor; biases of one token add up.

    Args:
      phrases_NL: int32 ids, -1 standing before the shorter ones; where -1 is last there is none.
    """
    before = phrases_NL.shape[1] - 1
    places_BL = text.lengths[:, None] + jnp.arange(-before, 0)[None]
    tails_BL = jnp.take_along_axis(text.ids, jnp.maximum(places_BL, 0), axis=1)
    tails_BL = jnp.where(places_BL >= 0, tails_BL, -1)
    heads_1NL = phrases_NL[None, :, :-1]
    is_near_BN = jnp.all((heads_1NL < 0) | (heads_1NL == tails_BL[:, None]), axis=-1)
    last_N = jnp.where(phrases_NL[:, -1] < 0, logits_BV.shape[1], phrases_NL[:, -1])
    return logits_BV.at[:, last_N].add(jnp.where(is_near_BN, biases_N[None], 0), mode="drop")


def less_repeated(logits_BV, text: Text, penalty):
    """Divide by the penalty the logits of the text's tokens that are positive, multiply the others.

    Keskar et al. 2019, arXiv 1909.05858, §4.1; of negative logits as Transformers' RepetitionPenaltyLogitsProcessor.
    """
    is_there_BV = _counts(text, 0, logits_BV) > 0
    changed_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(is_there_BV & (logits_BV > -jnp.inf), jnp.clip(changed_BV, -MOST, MOST), logits_BV)


def less_frequent(logits_BV, text: Text, frequency, presence):
    """Take from a token's logit `frequency` for every time that it was added, and `presence` if it was.

    As the API of OpenAI does, and vLLM: what the prompt has does not count.
    """
    counts_BV = _counts(text, text.begun[:, None], logits_BV)
    return logits_BV - counts_BV * frequency - (counts_BV > 0) * presence


def without_ngrams(logits_BV, text: Text, size):
    """Ban the tokens that would make the text's last `size` tokens ones that it has already.

    Paulus et al. 2017, arXiv 1705.04304, §2.5; as Transformers' NoRepeatNGramLogitsProcessor.
    """
    places_1S = jnp.arange(text.ids.shape[1])[None]
    ids_BS = text.ids

    def compare(back, is_same_BS):
        """Keep the places so far before which stands, `back` tokens away, what stands so before the text's end."""
        last_B1 = jnp.take_along_axis(ids_BS, jnp.maximum(text.lengths[:, None] - back, 0), axis=1)
        return is_same_BS & (jnp.roll(ids_BS, back, axis=1) == last_B1)

    is_within_BS = (places_1S >= size - 1) & (places_1S < text.lengths[:, None])
    is_same_BS = jax.lax.fori_loop(1, jnp.minimum(size, ids_BS.shape[1]), compare, is_within_BS)
    ids_BS = jnp.where(is_same_BS, ids_BS, logits_BV.shape[1])
    return logits_BV.at[jnp.arange(len(ids_BS))[:, None], ids_BS].set(-jnp.inf, mode="drop")


def not_ended(logits_BV, text: Text, least, ends_E):
    """Ban the ends while fewer than `least` tokens were added."""
    is_short_B1 = (text.lengths - text.begun < least)[:, None]
    return jnp.where(is_short_B1 & is_end(ends_E, logits_BV)[None], -jnp.inf, logits_BV)


def possible(logits_BV, before_BV, ends_E):
    """Return the logits, but where no token is left, those of the ends as they were before: the text ends.

    Where there are no ends, those of all tokens.
    """
    is_end_V = is_end(ends_E, logits_BV)
    is_left_B1 = jnp.any(logits_BV > -jnp.inf, axis=1, keepdims=True)
    others_BV = jnp.where((is_end_V | ~jnp.any(is_end_V))[None], jnp.maximum(before_BV, -MOST), -jnp.inf)
    return jnp.where(is_left_B1, logits_BV, others_BV)


def is_end(ends_E, logits_BV):
    """Return of each id `(V,)` whether it is an end."""
    size = logits_BV.shape[1]
    return jnp.zeros(size, bool).at[jnp.where(ends_E < 0, size, ends_E)].set(True, mode="drop")


def _counts(text: Text, first, logits_BV):
    """Return how often each token stands in the text from `first` on, float32 `(B, V)`."""
    places_1S = jnp.arange(text.ids.shape[1])[None]
    is_text_BS = (places_1S >= first) & (places_1S < text.lengths[:, None])
    ids_BS = jnp.where(is_text_BS, text.ids, logits_BV.shape[1])
    return jnp.zeros_like(logits_BV).at[jnp.arange(len(ids_BS))[:, None], ids_BS].add(1, mode="drop")
