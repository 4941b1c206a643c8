"""Each scheme against its rule: look-up, loops, complex numbers, published slopes and buckets; and having none."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import schema
from lm.model import masks
from lm.model.positions import ADDED, BIASES, TURNED, Alibi, Learned, Relative, Sinusoidal, bucket, rotate
from lm.model.transformer import Transformer

POSITIONS = np.array([[0, 1, 2, 3, 11], [5, 0, 1, 12, 7]])


def test_every_scheme_has_one_kind():
    assert sorted(["none", *ADDED, *TURNED, *BIASES]) == sorted(schema.FIELDS["model.positions"].rule.choices)


def test_learned_looks_up(tiny):
    section = tiny(model__width=24).model
    table = np.random.default_rng(0).normal(size=(13, 24)).astype(np.float32)
    out = Learned(section).apply({"params": {"embedding": jnp.asarray(table)}}, POSITIONS)
    np.testing.assert_array_equal(out, table[POSITIONS])


@pytest.mark.parametrize("width", [24, 7])
def test_sinusoidal_is_sine_and_cosine_in_turn(tiny, width):
    out = Sinusoidal(tiny(model__width=width).model).apply({}, POSITIONS)
    expected = np.zeros((2, 5, width))
    for row, place, index in np.ndindex(2, 5, width):
        angle = POSITIONS[row, place] / 10000 ** (2 * (index // 2) / width)
        expected[row, place, index] = math.cos(angle) if index % 2 else math.sin(angle)
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_rotary_is_a_product_of_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 6))
    frequencies = 100.0 ** (-2 * np.arange(3) / 6)
    turns = np.exp(1j * POSITIONS[:, :, None, None] * frequencies)
    turned = (x[..., :3] + 1j * x[..., 3:]) * turns
    out = rotate(jnp.asarray(x, jnp.float32), POSITIONS, 100.0)
    np.testing.assert_allclose(out, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


def test_rotary_scores_depend_on_distance_alone():
    query, key = np.random.default_rng(1).normal(size=(2, 1, 5, 3, 6)).astype(np.float32)
    places = np.arange(5)[None]
    scores = lambda shift: np.einsum(
        "bthc,bshc->bhts", rotate(query, places + shift, 50.0), rotate(key, places + shift, 50.0)
    )
    np.testing.assert_allclose(scores(0), scores(17), atol=1e-5)
    moved = np.einsum("bthc,bshc->bhts", rotate(query, places + 17, 50.0), rotate(key, places, 50.0))
    assert np.abs(moved - scores(0)).max() > 0.1


def test_rotary_keeps_dtype_and_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 1, 8)), jnp.bfloat16)
    far = np.array([[1000, 1001]])
    out = rotate(x, far, 10000.0)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out, rotate(x.astype(jnp.float32), far, 10000.0), atol=0.02)


# 8 heads: Press et al. 2022, §3. 12 heads: 8 heads' and every other one of 16 heads', 1/√2, 1/(2√2), …, as in the
# authors' code and in transformers 5.23.0, models/bloom/modeling_bloom.py, build_alibi_tensor.
SLOPES = {
    8: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256],
    12: [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
    1: [1 / 256],
    3: [1 / 16, 1 / 256, 1 / 4],
}


@pytest.mark.parametrize("heads", SLOPES)
def test_alibi_falls_by_published_slopes(tiny, heads):
    section = tiny(model__heads=heads, model__kv_heads=heads).model
    distance = np.asarray(masks.distance(masks.cached(POSITIONS, 13)))
    out = Alibi(section).apply({})(distance)
    expected = np.zeros((2, heads, 5, 13))
    for row, head, t, s in np.ndindex(*expected.shape):
        expected[row, head, t, s] = -SLOPES[heads][head] * abs(POSITIONS[row, t] - s)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


# Of distances 0, 1, 2, …, printed by transformers 5.23.0, models/t5/modeling_t5.py,
# T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=…, max_distance=…).
BUCKETS = {
    (8, 20): "0 1 2 3 4 4 5 5 5 6 6 6 6 6 7 7 7 7 7 7 7 7 7 7 7",
    (7, 11): "0 1 2 3 3 4 5 5 6 6 6 6 6 6 6 6",
    (2, 5): "0 1 1 1 1 1 1 1 1 1",
    (
        32,
        128,
    ): "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 16 16 17 17 18 18 18 19 19 19 20 20 20 20 21 21 21 21 22 22 22",
}


@pytest.mark.parametrize(("buckets", "farthest"), BUCKETS)
def test_buckets_are_t5s(buckets, farthest):
    expected = [int(word) for word in BUCKETS[buckets, farthest].split()]
    np.testing.assert_array_equal(bucket(jnp.arange(len(expected)), buckets, farthest), expected)
    np.testing.assert_array_equal(bucket(jnp.arange(-3, 1), buckets, farthest), 0)


# Of distances -12 … 12 and -8 … 8 to keys before, likewise printed, with bidirectional=True.
BOTH_WAYS = {
    (8, 20): "7 7 7 7 7 7 6 6 6 6 6 5 0 1 2 2 2 2 2 3 3 3 3 3 3",
    (7, 11): "5 5 5 5 5 4 4 4 0 1 1 1 2 2 2 2 2",
    (32, 128): "24 24 24 24 23 22 21 20 19 18 17 0 1 2 3 4 5 6 7 8 8 8 8",
}


@pytest.mark.parametrize(("buckets", "farthest"), BOTH_WAYS)
def test_buckets_of_keys_on_both_sides_are_t5s(buckets, farthest):
    expected = [int(word) for word in BOTH_WAYS[buckets, farthest].split()]
    distance = jnp.arange(len(expected)) - len(expected) // 2
    np.testing.assert_array_equal(bucket(distance, buckets, farthest, is_causal=False), expected)


def _bucket_in_whole_numbers(distance, buckets, farthest):
    """Return exact + ⌊(buckets − exact) · log(distance / exact) / log(farthest / exact)⌋ without a logarithm."""
    exact = buckets // 2
    if distance < exact:
        return distance
    powers = buckets - exact
    reaches = lambda count: distance**powers * exact**count >= farthest**count * exact**powers
    return exact + sum(reaches(count) for count in range(1, powers))


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (32, 512), (16, 128), (8, 64), (5, 17), (6, 48)])
def test_buckets_are_exact_where_a_power_is_reached(buckets, farthest):
    found = jax.jit(bucket, static_argnums=(1, 2))(jnp.arange(2 * farthest), buckets, farthest)
    expected = [_bucket_in_whole_numbers(distance, buckets, farthest) for distance in range(2 * farthest)]
    np.testing.assert_array_equal(found, expected)


def test_an_offset_leaves_rows_unread(tiny):
    section = tiny(model__position_offset=2).model
    table = np.random.default_rng(0).normal(size=(15, 24)).astype(np.float32)
    out = Learned(section).apply({"params": {"embedding": jnp.asarray(table)}}, POSITIONS)
    np.testing.assert_array_equal(out, table[POSITIONS + 2])


@pytest.mark.parametrize("is_causal", [True, False])
def test_relative_looks_up_head_and_bucket(tiny, is_causal):
    section = tiny(model__relative_buckets=7, model__relative_distance=11).model
    table = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    distance = np.asarray(masks.distance(masks.cached(POSITIONS, 13)))
    out = Relative(section, is_causal).apply({"params": {"embedding": jnp.asarray(table)}})(distance)
    expected = np.zeros((2, 4, 5, 13), np.float32)
    for row, head, t, s in np.ndindex(*expected.shape):
        before = POSITIONS[row, t] - s
        index = _bucket_in_whole_numbers(max(before, 0), 7, 11)
        if not is_causal:
            index = 3 * (before < 0) + _bucket_in_whole_numbers(abs(before), 3, 11)
        expected[row, head, t, s] = table[index, head]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("positions", schema.FIELDS["model.positions"].rule.choices)
def test_only_without_positions_the_order_before_is_unseen(tiny, random_params, positions):
    """In one layer; in two the causal mask tells it, since the tokens before differ in what they saw."""
    ids = np.random.default_rng(0).permutation(61)[None, :13]
    turned = ids[:, [*range(11, -1, -1), 12]]
    places, segments = np.arange(13)[None], np.ones((1, 13), int)
    moved = {}
    for layers in (1, 2) if positions == "none" else (1,):
        model = Transformer(tiny(model__layers=layers, model__positions=positions).model)
        run, params = jax.jit(model.apply), {"params": random_params(model)}
        first, second = (run(params, each, places, segments).hidden for each in (ids, turned))
        moved[layers] = np.abs(first[0, -1] - second[0, -1]).max()
    assert (moved[1] < 1e-5) == (positions == "none")
    assert moved.get(2, 1.0) > 0.01 and (positions == "none" or moved[1] > 0.01)
