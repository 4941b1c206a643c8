"""A text in, a guess at how it goes on out: what followed where its last tokens stood before."""

import jax.numpy as jnp

from lm.generate.penalties import Text

_LONGEST = 3  # tokens that are looked for


def guess(before_BU, text: Text, count: int):
    """Return the tokens that followed the latest of the places which most of the text's last tokens stand before.

    Prompt look-up (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding): the last 3 tokens are looked for, where
    they are not found the last 2, or the last; where that is not found either, it is guessed again and again. What
    reaches the text's end goes on with what was guessed from it.

    Args:
      before_BU: int32, ids that stand before the text, -1 for none.
      count: of tokens, `(B, count)`.
    """
    ids_BS = jnp.concatenate([before_BU, text.ids], axis=1)
    begins = before_BU.shape[1]
    places_1S, end_B1 = jnp.arange(ids_BS.shape[1])[None], begins + text.lengths[:, None]
    at = lambda places: jnp.take_along_axis(ids_BS, jnp.maximum(places, 0), axis=1)
    is_same_BS = (places_1S < end_B1) & (ids_BS >= 0)
    longest_BS = jnp.zeros_like(ids_BS)
    for back in range(1, _LONGEST + 1):
        is_same_BS &= (places_1S >= back) & (jnp.roll(ids_BS, back, axis=1) == at(end_B1 - back))
        is_same_BS &= end_B1 - back >= begins
        longest_BS += is_same_BS
    score_BS = jnp.where(places_1S < end_B1, longest_BS * ids_BS.shape[1] + places_1S, -1)
    found_B1 = jnp.argmax(score_BS, axis=1, keepdims=True)
    return jnp.maximum(at(found_B1 + jnp.arange(count)[None] % (end_B1 - found_B1)), 0)
