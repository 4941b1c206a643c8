"""The wiring of a block, and where dropout falls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.transformer import Transformer


@pytest.fixture(scope="module")
def counting(tiny, random_params):
    """Return a function: (rate, key) → for every place of dropout, its factor at `(B, T, D)`.

    All kernels are zero, and the biases of the branches and the embedding are powers of a large number, so that
    each place writes its own digit of the result; a large ε makes the last norm the identity up to a factor.
    """
    section = lambda rate: (
        tiny(
            model__norm="rms", model__bias=True, model__norm_epsilon=1e20, model__dropout=rate, model__kv_heads=4
        ).model
    )
    base = 8.0  # factors are below 4 in value and multiples of 1 / (1 − rate)
    places = 7  # embedding, then attention and feed-forward of 3 layers
    params = jax.tree.map(jnp.zeros_like, random_params(Transformer(section(0.0))))
    layers = base ** (1 + 2 * jnp.arange(3.0))[:, None] * jnp.ones((1, 24))
    params["embed"]["embedding"] += 1.0
    params["decoder"]["block"]["attention"]["out"]["bias"] = layers
    params["decoder"]["block"]["feedforward"]["out"]["bias"] = base * layers
    params["decoder"]["norm"]["scale"] += 1e10

    @functools.partial(jax.jit, static_argnums=0)
    def run(rate, rngs):
        ids = jnp.zeros((8, 13), jnp.int32)
        return Transformer(section(rate)).apply({"params": params}, ids, ids, ids, train=rngs is not None, rngs=rngs)

    def factors(rate, key):
        rngs = None if key is None else {"dropout": jax.random.key(key)}
        unit = 1.0 if key is None else 1 / (1 - rate)
        digits = np.rint(np.asarray(run(rate, rngs).hidden, np.float64) / unit).astype(int)
        return np.stack([digits // 8**place % 8 for place in range(places)]) * unit

    return factors


def test_without_key_nothing_is_dropped(counting):
    assert (counting(0.25, None) == 1).all()


def test_rate_scale_and_independence(counting):
    factors = counting(0.25, 3)
    assert set(np.unique(factors)) == {0.0, 1 / 0.75}
    is_kept = factors > 0
    assert np.abs(is_kept.mean(axis=(1, 2, 3)) - 0.75).max() < 0.04  # 4.6 standard deviations of 2496 draws
    for one in range(7):
        for other in range(one):
            both = (is_kept[one] & is_kept[other]).mean()
            assert abs(both - 0.75**2) < 0.05, (one, other)


def test_keys_differ(counting):
    one, same, other = counting(0.25, 3), counting(0.25, 3), counting(0.25, 4)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any(axis=(1, 2, 3)).all()
