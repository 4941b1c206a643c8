"""A Bundle of an encoder and a text with gaps in; the likeliest tokens of every gap out."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.objective.losses import log_softmax_parts, logits_of
from lm.refusal import Refusal
from lm.weights.place import Bundle


class Filling(NamedTuple):
    """What may stand in a gap. text: of the token. token: its id. logprob: natural log of its probability."""

    text: str
    token: int
    logprob: float


def fill(bundle: Bundle, text: str, count: int = 5) -> list[list[Filling]]:
    """Return for each gap, in order, the `count` likeliest tokens, the likeliest first (Devlin et al. 2019, §3.1).

    Args:
      bundle: of an encoder.
      text: with the mask token's spelling where something is missing.
      count: of fillings.

    Raises:
      Refusal: the model predicts no masked tokens, or the text has no gap or too many tokens.
    """
    section, tokenizer = bundle.model.config, bundle.tokenizer
    if section.architecture != "encoder" or section.head not in ("masked", "language"):
        raise Refusal(
            f"model.architecture is {section.architecture!r} and model.head {section.head!r}: gaps are filled by an "
            "encoder whose head gives logits of ids."
        )
    mask = tokenizer.specials.mask if tokenizer else None
    if mask is None:
        raise Refusal("the model's tokenizer has no mask token, so there is no gap to fill.")
    ids = tokenizer.framed(tokenizer.marked(text))
    if mask not in ids:
        raise Refusal(f"the text {text!r} has no gap: write {tokenizer.spelled(mask)} where something is missing.")
    if len(ids) > section.context:
        raise Refusal(f"the text has {len(ids)} tokens: it must have at most the model's context ({section.context}).")
    logits_TV = _logits(bundle.model, bundle.params, ids[None])[0]
    gaps = [np.asarray(logits_TV[place]) for place in np.flatnonzero(ids == mask)]
    best = [np.argsort(-logits_V, kind="stable")[:count] for logits_V in gaps]
    return [
        [Filling(tokenizer.token(int(token)), int(token), float(logits_V[token])) for token in tokens]
        for logits_V, tokens in zip(gaps, best, strict=True)
    ]


@partial(jax.jit, static_argnums=0)
def _logits(model, params, ids_BT):
    """Return the log-probabilities of every token, float32 `(B, T, V)`."""
    positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1]), ids_BT.shape)
    out = model.apply({"params": params}, ids_BT, positions_BT, jnp.ones_like(ids_BT))
    logits = logits_of(model.config)._replace(dtype="float32")
    logits_BTV, log_total_BT1 = log_softmax_parts(out.hidden, out.unembed, logits, out.unembed_bias)
    return (logits_BTV - log_total_BT1)[:, :, : model.config.vocabulary]
