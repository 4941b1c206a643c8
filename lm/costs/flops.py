"""A config in; parameter count and FLOPs per token out."""

# Norms in a block, and after the last.
_NORMS = {"pre": (2, 1), "post": (2, 0), "sandwich": (4, 1), "parallel": (1, 1), "parallel_norms": (2, 1)}


def parameters(model) -> int:
    """Return the number of parameters, vocabulary padding not counted.

    Args:
      model: config.model, resolved and bound.
    """
    width, layers, wide = model.width, model.layers, model.feedforward_width
    bias, attention_bias = 1 if model.bias else 0, 1 if model.attention_bias else 0
    query = (width + attention_bias) * model.heads * model.head_width
    key_value = 2 * (width + attention_bias) * model.kv_heads * model.head_width
    out = model.heads * model.head_width * width + bias * width
    inward = (2 if model.gated else 1) * (width * wide + bias * wide)
    has_bias = bias if model.norm == "layer" else 0
    norm, head_norms = width * (1 + has_bias), 2 * model.head_width * (1 + has_bias) if model.qk_norm else 0
    in_block, at_the_end = _NORMS[model.wiring]
    block = query + key_value + out + inward + wide * width + bias * width + in_block * norm + head_norms
    block += 2 if model.residual_scalars else 0
    block += model.kv_heads if model.value_embeddings else 0
    embeddings = model.vocabulary * width * (1 if model.tied else 2)
    embeddings += model.value_embeddings * model.vocabulary * model.kv_heads * model.head_width
    positions = {"learned": model.context * width, "relative": model.relative_buckets * model.heads}
    return embeddings + positions.get(model.positions, 0) + layers * block + at_the_end * norm


def training_flops_per_token(model) -> int:
    """Return FLOPs of one token's forward and backward pass, recomputation not counted.

    Six per weight that is multiplied (the head is, embeddings are not), and 12 · heads · head_width · keys for
    each layer's attention (PaLM: Chowdhery et al. 2022, arXiv 2204.02311, appendix B), where `keys` is how many
    a token sees in the mean: half of the context, or w − w² / 2 context in a window of w. Biases, norms, biases
    of scores and look-ups are not counted.
    """
    width, wide = model.width, model.feedforward_width
    attention = width * (2 * model.heads + 2 * model.kv_heads) * model.head_width
    block = attention + (3 if model.gated else 2) * width * wide
    weights = model.layers * block + model.vocabulary * width
    windows = tuple(model.windows) or (0,)
    seen = [windows[layer % len(windows)] or model.context for layer in range(model.layers)]
    keys = sum(window - window * window / (2 * model.context) for window in (min(w, model.context) for w in seen))
    return round(6 * weights + 12 * model.heads * model.head_width * keys)
