"""What a parameter is for in, its initialiser out: the schemes by which weights start."""

import flax.linen as nn

# role: "embedding" (rows of width numbers), "in" (reads the residual stream), "out" (a branch's output onto it).


def _gpt2(config, role: str, fan_in: int):
    """N(0, init_std), for branch outputs init_std / √branches, two a layer (Radford et al. 2019, §2.3).

    A decoder's layer that looks at an encoder has three, and the encoder's are as many more on the way.
    """
    branches = 2 * config.layers
    if config.architecture == "encoder_decoder":
        branches = 3 * config.layers + 2 * config.encoder_layers
    return nn.initializers.normal(config.init_std * (branches**-0.5 if role == "out" else 1.0))


def _fan_in(config, role: str, fan_in: int):
    """Truncated at two deviations, of standard deviation 1 / √fan-in after it (LeCun et al. 1998, §4.6)."""
    return nn.initializers.truncated_normal(fan_in**-0.5 / _TRUNCATED)


def _small(config, role: str, fan_in: int):
    """N(0, 2 / 5 width), for branch outputs of deviation 2 / layers√width.

    Nguyen & Salazar 2019 (arXiv 1910.05895); branch outputs as in GPT-NeoX (Black et al. 2022, arXiv 2204.06745).
    """
    small = (2 / (5 * config.width)) ** 0.5
    layers = config.layers + (config.encoder_layers or 0)
    return nn.initializers.normal(2 / (layers * config.width**0.5) if role == "out" else small)


_TRUNCATED = 0.87962566103423978  # deviation of N(0, 1) cut off at ±2

INITS = {"gpt2": _gpt2, "fan_in": _fan_in, "small": _small}


def initializer(config, role: str, fan_in: int):
    """Return (key, shape, dtype) → initial values.

    Args:
      config: config.model.
      role: "embedding", "in" or "out".
      fan_in: numbers that each output is a sum over; for an embedding its width.
    """
    if role == "out" and config.zero_init:
        return nn.initializers.zeros
    return INITS[config.init](config, role, fan_in)
