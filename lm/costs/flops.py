"""A config in; parameter count and FLOPs per token out."""


def parameters(model) -> int:
    """Return the number of parameters, vocabulary padding not counted.

    Args:
      model: config.model, resolved and bound.
    """
    width, layers, wide = model.width, model.layers, model.feedforward_width
    bias = 1 if model.bias else 0
    query = width * model.heads * model.head_width + bias * model.heads * model.head_width
    key_value = 2 * (width * model.kv_heads * model.head_width + bias * model.kv_heads * model.head_width)
    out = model.heads * model.head_width * width + bias * width
    inward = (2 if model.gated else 1) * (width * wide + bias * wide)
    norm = width * (1 + (bias if model.norm == "layer" else 0))
    block = query + key_value + out + inward + wide * width + bias * width + 2 * norm
    embeddings = model.vocabulary * width * (1 if model.tied else 2)
    positions = model.context * width if model.positions == "learned" else 0
    return embeddings + positions + layers * block + norm


def training_flops_per_token(model) -> int:
    """Return FLOPs of one token's forward and backward pass, recomputation not counted.

    Six per weight that is multiplied (the head is, embeddings are not), and 12 · layers · heads · head_width ·
    context / 2 for causal attention (PaLM: Chowdhery et al. 2022, arXiv 2204.02311, appendix B, halved for
    what the mask hides). Biases and norms are not counted.
    """
    width, wide = model.width, model.feedforward_width
    attention = width * (2 * model.heads + 2 * model.kv_heads) * model.head_width
    block = attention + (3 if model.gated else 2) * width * wide
    weights = model.layers * block + model.vocabulary * width
    return 6 * weights + 6 * model.layers * model.heads * model.head_width * model.context
