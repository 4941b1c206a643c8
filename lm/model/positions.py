"""How order enters: added to the embedding, turned into queries and keys, or added to the scores.

A scheme is one entry in the dictionary of its kind; `none` is in none of them.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np


class Learned(nn.Module):
    """A vector per position, `(context, D)`, added to the embedding (Gehring et al. 2017; GPT-2).

    With an offset the table begins with as many rows that no token reads.
    """

    config: object

    @nn.compact
    def __call__(self, positions_BT):
        c = self.config
        initial = nn.initializers.normal(c.init_std)
        shape = (c.context + c.position_offset, c.width)
        embedding = self.param("embedding", initial, shape, jnp.dtype(c.parameter_dtype))
        return embedding[positions_BT + c.position_offset].astype(c.dtype)


class Sinusoidal(nn.Module):
    """sin and cos of position / 10000^(2i/D), in turn, added to the embedding (Vaswani et al. 2017, §3.5)."""

    config: object

    def __call__(self, positions_BT):
        c = self.config
        rates = 10000.0 ** (-jnp.arange(0, c.width, 2, dtype=jnp.float32) / c.width)
        angles = positions_BT[:, :, None].astype(jnp.float32) * rates[None, None]
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*positions_BT.shape, -1)
        return waves[:, :, : c.width].astype(c.dtype)


def rotate(x_BTHC, positions_BT, rates, stretch: float = 1.0):
    """Turn each pair (i, i + len(rates)) of a head by position · rates[i], times `stretch`; what is behind them stays.

    Su et al. 2021, arXiv 2104.09864, §3.2.2. Pairs halves, as Llama's published weights do; angles are float32.
    """
    half = len(rates)
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * jnp.asarray(rates, jnp.float32)[None, None, None]
    cosine, sine = stretch * jnp.cos(angles), stretch * jnp.sin(angles)
    first, second = x_BTHC[..., :half].astype(jnp.float32), x_BTHC[..., half : 2 * half].astype(jnp.float32)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return jnp.concatenate([turned.astype(x_BTHC.dtype), x_BTHC[..., 2 * half :]], axis=-1)


def rotary_rates(config, is_windowed: bool) -> np.ndarray:
    """Return the radians per position of each pair: base^(−2i/C), of the C numbers of a head that are turned.

    Args:
      is_windowed: for a layer with a window, which may have a base of its own, not scaled (Gemma 3, arXiv
        2503.19786, §2).
    """
    half = int(config.head_width * config.rotary_share) // 2
    base = config.rotary_window_base if _has_own_base(config, is_windowed) else config.rotary_base
    rates = base ** (-np.arange(half) / half)
    return rates if _has_own_base(config, is_windowed) else SCALINGS[config.rotary_scaling](rates, config)


def rotary_stretch(config, is_windowed: bool) -> float:
    """Return by what queries and keys are stretched, so that scores are by its square: YaRN's, else 1.

    Where it is not given, 0.1 · ln s + 1 (Peng et al. 2023, arXiv 2309.00071, §3.4).
    """
    if config.rotary_scaling != "yarn" or _has_own_base(config, is_windowed):
        return 1.0
    return config.rotary_attention or 0.1 * math.log(config.rotary_factor) + 1


def _has_own_base(config, is_windowed: bool) -> bool:
    return is_windowed and config.rotary_window_base > 0


def _linear(rates, config):
    """Squeeze positions by a factor (Chen et al. 2023, arXiv 2306.15595, §2.3)."""
    return rates / config.rotary_factor


def _ntk(rates, config):
    """Raise the base by s^(C/(C−2)): the slowest pair turns 1/s as fast, the fastest as before (NTK-aware: bloc97 2023,
    as in Peng et al. 2023, arXiv 2309.00071, §3.1).
    """
    half = len(rates)
    return rates * config.rotary_factor ** (-np.arange(half) / (half - 1))


def _yarn(rates, config):
    """Squeeze positions for pairs that turn less than `slow` times in the original context, not at all for those that
    turn more than `fast` times; between these pairs in proportion to the pair's number (Peng et al. 2023, arXiv
    2309.00071, §3.2, its published code, which rounds to whole pairs).
    """
    half = len(rates)
    pair = lambda turns: half * math.log(config.rotary_original_context / (turns * 2 * math.pi), config.rotary_base)
    first, last = max(math.floor(pair(config.rotary_fast)), 0), min(math.ceil(pair(config.rotary_slow)), 2 * half - 1)
    squeezed = np.clip((np.arange(half) - first) / (last - first or 0.001), 0, 1)
    return (1 - squeezed) * rates + squeezed * rates / config.rotary_factor


def _llama3(rates, config):
    """Squeeze positions for what turns less than `low` times in the original context, and not at all what turns more
    than `high` times; in between, in proportion (Llama 3.1's published code, llama_models: apply_scaling).
    """
    turns = config.rotary_original_context * rates / (2 * np.pi)
    kept = np.clip((turns - config.rotary_low) / (config.rotary_high - config.rotary_low), 0, 1)
    return kept * rates + (1 - kept) * rates / config.rotary_factor


def _rotary(x_BTHC, positions_BT, config, is_windowed: bool):
    return rotate(x_BTHC, positions_BT, rotary_rates(config, is_windowed), rotary_stretch(config, is_windowed))


class Alibi(nn.Module):
    """−slope · distance to either side, a slope per head (Press et al. 2022, arXiv 2108.12409, §3)."""

    config: object
    is_causal: bool = True

    def __call__(self):
        slopes_H = jnp.asarray(alibi_slopes(self.config.heads), jnp.float32)
        return lambda distance_BTS: -slopes_H[None, :, None, None] * jnp.abs(distance_BTS)[:, None].astype(jnp.float32)


def alibi_slopes(heads: int) -> list[float]:
    """Return each head's slope: 2^(−8h/heads) for a power of two.

    Else those of the power below, then every other one of the power above (the authors' published code).
    """
    below = 1 << (heads.bit_length() - 1)
    powers = lambda count: [2.0 ** (-8 * (head + 1) / count) for head in range(count)]
    return powers(below) + powers(2 * below)[::2][: heads - below]


class Relative(nn.Module):
    """A number per head and bucket of distances, `(buckets, H)`, one table for all layers (T5: Raffel et al. 2020).

    Half of the buckets are one distance each; the others grow by powers up to relative_distance, and the last
    takes all beyond. Where keys after the query are seen, half of the buckets are theirs.
    """

    config: object
    is_causal: bool = True

    @nn.compact
    def __call__(self):
        c = self.config
        shape, dtype = (c.relative_buckets, c.heads), jnp.dtype(c.parameter_dtype)
        table = self.param("embedding", nn.initializers.normal(c.init_std), shape, dtype).astype(jnp.float32)

        def bias(distance_BTS):
            buckets_BTS = bucket(distance_BTS, c.relative_buckets, c.relative_distance, self.is_causal)
            return jnp.moveaxis(table[buckets_BTS], 3, 1)

        return bias


def bucket(distance, buckets: int, farthest: int, is_causal: bool = True):
    """Return the bucket of each distance to a key before, int32 (T5's rule); those after have their own or bucket 0."""
    if not is_causal:
        after = jnp.where(distance < 0, buckets // 2, 0)
        return after + bucket(jnp.abs(distance), buckets // 2, farthest)
    exact = buckets // 2
    distance = jnp.maximum(distance, 0)
    share = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(farthest / exact)
    far = exact + (share * (buckets - exact)).astype(jnp.int32)
    return jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))


ADDED = {"learned": Learned, "sinusoidal": Sinusoidal}  # (config)(positions_BT) → (B, T, D)
TURNED = {"rotary": _rotary}  # (x (B, T, H, C), positions_BT, config, is_windowed) → the same shape
# (radians per position of each pair, config) → the same squeezed, NumPy
SCALINGS = {"none": lambda rates, config: rates, "linear": _linear, "ntk": _ntk, "yarn": _yarn, "llama3": _llama3}
# (config, is_causal)() → (distance (B or 1, T, S) → (B or 1, H, T, S), float32)
BIASES = {"alibi": Alibi, "relative": Relative}
