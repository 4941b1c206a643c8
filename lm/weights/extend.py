"""A Bundle and KIND:FACTOR in; the same weights with a context so many times as long, its positions squeezed, out."""

import math

import ml_collections

from lm.config import schema
from lm.config.resolve import resolve
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.weights.bundle import Bundle

_KINDS = schema.FIELDS["model.rotary_scaling"].rule.choices


def extended(bundle: Bundle, how: str) -> Bundle:
    """Return a Bundle whose model.context is FACTOR times as long.

    Args:
      bundle: of a model whose rotary positions are not scaled yet; or with the kind `none`, which only lets it read
        further, of any whose positions are not learned vectors.
      how: KIND:FACTOR, KIND one of model.rotary_scaling; empty: as it is.

    Raises:
      Refusal: it cannot be read, or the model's positions cannot be squeezed so.
    """
    if not how:
        return bundle
    kind, factor = _parsed(how)
    section = bundle.config.model
    if kind != "none" and section.positions != "rotary":
        raise Refusal(f"--extend is {how!r}: model.positions is {section.positions!r}, and only 'rotary' are squeezed.")
    if section.positions == "learned":
        raise Refusal(f"--extend is {how!r}: the model has learned {section.context} positions, and has no others.")
    if kind != "none" and section.rotary_scaling != "none":
        raise Refusal(f"--extend is {how!r}: the model's positions are squeezed already ({section.rotary_scaling}).")
    config = ml_collections.ConfigDict(bundle.config)
    config.model.context = int(section.context * factor)
    if kind != "none":
        config.model.rotary_scaling, config.model.rotary_factor = kind, factor
    if kind in ("llama3", "yarn"):
        config.model.rotary_original_context = section.context
    config = resolve(config)
    return bundle._replace(config=config, model=Transformer(config.model))


def _parsed(how: str) -> tuple[str, float]:
    kind, _, number = how.partition(":")
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if kind not in _KINDS or not 1 <= factor <= 1e6:
        kinds = ", ".join(_KINDS)
        raise Refusal(f"--extend is {how!r}: it must be KIND:FACTOR, KIND one of {kinds}, FACTOR from 1 to a million.")
    return kind, factor
