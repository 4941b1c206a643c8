"""The shapes of a model's parameters in; how many they are, and FLOPs per token, out.

They are given as path → shape, of the model without the rows that pad its vocabulary, so that whatever an option adds
counts itself.
"""

import math
import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

_OF_IDS = ("language", "masked")  # heads that multiply by the embedding, if it is theirs
_EXPERTS = r"/experts/"
_OF_ENCODER = r"^encoder/|/cross_attention/(key|value)/"  # in an encoder–decoder, what an encoder's token is taken to


def parameters(leaves: Shapes) -> int:
    """Return the number of parameters."""
    return sum(map(math.prod, leaves.values()))


def active_parameters(model, leaves: Shapes) -> int:
    """Return the number of parameters that one token has to do with: of its experts alone.

    Args:
      model: config.model, resolved and bound.
      leaves: its parameters.
    """
    return round(sum(_share(model, path) * math.prod(shape) for path, shape in leaves.items()))


def training_flops_per_token(model, leaves: Shapes, decoder_tokens: int | None = None) -> int:
    """Return FLOPs of one token's forward and backward pass, recomputation not counted.

    Six per weight that is multiplied (the head is, embeddings are not; of experts those that a token takes), and
    12 · heads · head_width · keys for each layer's attention (PaLM: Chowdhery et al. 2022, arXiv 2204.02311,
    appendix B), where `keys` is how many a token sees in the mean: half of the context, or w − w² / 2 context in a
    window of w; twice as many where those after it are not hidden. Biases, norms, biases of scores and look-ups are
    not counted.

    Args:
      model: config.model, resolved and bound.
      leaves: its parameters.
      decoder_tokens: of an encoder–decoder, the tokens of a row that its decoder reads; None: model.context, which
        the encoder reads. A row counts as model.context tokens whatever it is.
    """
    is_both, context = model.architecture == "encoder_decoder", model.context
    length = decoder_tokens if is_both and decoder_tokens else context
    share = length / context
    tokens = lambda path: 1.0 if is_both and re.search(_OF_ENCODER, path) else share
    weights = sum(
        tokens(path) * _share(model, path) * math.prod(shape)
        for path, shape in leaves.items()
        if path.endswith("kernel") or (path == "embed/embedding" and model.tied and model.head in _OF_IDS)
    )
    keys = share * _keys(model, length, model.layers, is_causal=model.architecture != "encoder")
    if is_both:
        keys += _keys(model, context, model.encoder_layers, is_causal=False) + share * model.layers * context
    return round(6 * weights + 12 * model.heads * model.head_width * keys)


def _share(model, path: str) -> float:
    """Return the share of a parameter's numbers that one token is multiplied by."""
    return model.experts_per_token / model.experts if re.search(_EXPERTS, path) else 1.0


def _keys(model, length: float, layers: int, is_causal: bool) -> float:
    """Return how many keys a token sees in the mean, summed over the layers of a stack that looks at itself."""
    windows = tuple(model.windows) or (0,)
    seen = [min(windows[layer % len(windows)] or length, length) for layer in range(layers)]
    before = sum(window - window * window / (2 * length) for window in seen)
    return before if is_causal else 2 * before
