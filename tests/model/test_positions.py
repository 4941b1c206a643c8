"""Each scheme against its rule: look-up, loops, complex numbers, published slopes and buckets; and having none."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import schema
from lm.model import masks
from lm.model.positions import (
    ADDED,
    BIASES,
    TURNED,
    Alibi,
    Learned,
    Relative,
    Sinusoidal,
    bucket,
    rotary_rates,
    rotary_stretch,
    rotate,
)
from lm.model.transformer import Transformer

RATES = 50.0 ** (-np.arange(3) / 3)
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


@pytest.mark.parametrize("width", [6, 11])
def test_rotary_is_a_product_of_complex_numbers(width):
    """Of the first three numbers and the next three; what is behind them stays."""
    x = np.random.default_rng(0).normal(size=(2, 5, 3, width))
    turned = (x[..., :3] + 1j * x[..., 3:6]) * np.exp(1j * POSITIONS[:, :, None, None] * RATES)
    out = rotate(jnp.asarray(x, jnp.float32), POSITIONS, RATES)
    np.testing.assert_allclose(out, np.concatenate([turned.real, turned.imag, x[..., 6:]], axis=-1), atol=1e-5)


def test_rotary_scores_depend_on_distance_alone():
    query, key = np.random.default_rng(1).normal(size=(2, 1, 5, 3, 6)).astype(np.float32)
    places = np.arange(5)[None]
    scores = lambda shift: np.einsum(
        "bthc,bshc->bhts", rotate(query, places + shift, RATES), rotate(key, places + shift, RATES)
    )
    np.testing.assert_allclose(scores(0), scores(17), atol=1e-5)
    moved = np.einsum("bthc,bshc->bhts", rotate(query, places + 17, RATES), rotate(key, places, RATES))
    assert np.abs(moved - scores(0)).max() > 0.1


def test_rotary_keeps_dtype_and_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 1, 8)), jnp.bfloat16)
    far = np.array([[1000, 1001]])
    rates = 10000.0 ** (-np.arange(4) / 4)
    out = rotate(x, far, rates)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out, rotate(x.astype(jnp.float32), far, rates), atol=0.02)


# Of a head of 14 or 32 numbers with base, factor, low, high, original context, printed by transformers 5.23.0,
# modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"]; the second has Llama 3.2's numbers.
LLAMA3 = {
    (14, 500.0, 8.0, 2.0, 5.0, 97): "1 0.4115597 0.05155124 0.008713819 0.003586257 0.001475959 0.0006074453",
    (32, 500000.0, 32.0, 1.0, 4.0, 8192): (
        "1 0.4403666 0.1939228 0.0853971 0.03760603 0.01656044 0.007292665 0.003211446 0.0004295567 1.946164e-05 "
        "8.570256e-06 3.774054e-06 1.661967e-06 7.318749e-07 3.222933e-07 1.419272e-07"
    ),
}


@pytest.mark.parametrize(("numbers", "expected"), LLAMA3.items())
def test_llama3_rates_are_the_published(tiny, numbers, expected):
    width, base, factor, low, high, context = numbers
    section = tiny(
        model__positions="rotary",
        model__head_width=width,
        model__rotary_base=base,
        model__rotary_scaling="llama3",
        model__rotary_factor=factor,
        model__rotary_low=low,
        model__rotary_high=high,
        model__rotary_original_context=context,
    ).model
    np.testing.assert_allclose(rotary_rates(section, False), [float(word) for word in expected.split()], rtol=1e-6)


# Of a head of 14 or 32 numbers with base, factor, slow, fast, original context, printed by transformers 5.23.0,
# modeling_rope_utils.ROPE_INIT_FUNCTIONS["yarn"], with the factor of attention; the second has Qwen 2.5's numbers.
YARN = {
    (14, 500.0, 8.0, 0.5, 3.0, 97): (
        "1 0.4115597 0.1199785 0.02904606 0.003586257 0.001475959 0.0006074453",
        1.2079441541679836,
    ),
    (32, 1e6, 4.0, 1.0, 32.0, 32768): (
        "1 0.4216965 0.1778279 0.07498942 0.03162278 0.01333521 0.004779901 0.001659962 0.00055 0.0001686786 "
        "4.445699e-05 1.874736e-05 7.905694e-06 3.333804e-06 1.405853e-06 5.928434e-07",
        1.138629436111989,
    ),
}


@pytest.fixture
def yarn(tiny):
    """Return a function: width of a head, numbers → a model section."""

    def make(width, base, factor, slow, fast, context, **others):
        return tiny(
            model__positions="rotary",
            model__head_width=width,
            model__rotary_base=base,
            model__rotary_scaling="yarn",
            model__rotary_factor=factor,
            model__rotary_slow=slow,
            model__rotary_fast=fast,
            model__rotary_original_context=context,
            **others,
        ).model

    return make


@pytest.mark.parametrize(("numbers", "expected"), YARN.items())
def test_yarn_rates_are_the_published(yarn, numbers, expected):
    rates, stretch = expected
    section = yarn(*numbers)
    np.testing.assert_allclose(rotary_rates(section, False), [float(word) for word in rates.split()], rtol=1e-6)
    assert rotary_stretch(section, False) == pytest.approx(stretch)


def test_yarn_pairs_by_the_formulas_of_the_paper(yarn):
    """Peng et al. 2023, §3.2: r(i) turns in the original context; §3.4: scores are divided by t, √(1/t) = 0.1 ln s + 1.

    The ramp runs over whole pairs, so it is held where the paper's is 0 or 1, and is between elsewhere.
    """
    base, context, factor, slow, fast, half = 500.0, 97, 8.0, 0.5, 3.0, 16
    section = yarn(2 * half, base, factor, slow, fast, context)
    rates, plain = rotary_rates(section, False), base ** (-np.arange(half) / half)
    turns = context * plain / (2 * np.pi)
    beyond = np.roll(turns, -1)  # of the pair after; that of the last is of no use
    assert 1 < np.sum(turns < slow) < np.sum(turns < fast) < half - 1
    np.testing.assert_allclose(rates[turns > fast], plain[turns > fast])
    is_squeezed = np.append(False, turns[:-1] < slow)
    np.testing.assert_allclose(rates[is_squeezed], plain[is_squeezed] / factor)
    is_between = (turns < fast) & (turns > slow) & (beyond > slow)
    share = (1 - rates / plain)[is_between] / (1 - 1 / factor)
    assert np.all((share > 0) & (share < 1)) and np.allclose(np.diff(share, 2), 0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 2 * half)), jnp.float32)
    scores = lambda stretch: np.einsum("bthc,bshc->bhts", *[rotate(x, POSITIONS[:, :3], rates, stretch)] * 2)
    stretch = rotary_stretch(section, False)
    np.testing.assert_allclose(scores(stretch), scores(1.0) * (0.1 * np.log(factor) + 1) ** 2, rtol=1e-4, atol=1e-4)


def test_yarn_leaves_what_is_not_turned_and_layers_with_a_base_of_their_own(yarn):
    numbers = (14, 500.0, 8.0, 0.5, 3.0, 97)
    own = yarn(*numbers, model__rotary_window_base=50.0, model__rotary_attention=1.5)
    assert (rotary_stretch(own, True), rotary_stretch(own, False)) == (1.0, 1.5)
    np.testing.assert_allclose(rotary_rates(own, True), 50.0 ** (-np.arange(7) / 7))
    section = yarn(*numbers, model__rotary_share=0.6)
    x = np.random.default_rng(0).normal(size=(2, 3, 1, 14)).astype(np.float32)
    out = TURNED["rotary"](jnp.asarray(x), POSITIONS[:, :3], section, False)
    np.testing.assert_array_equal(out[..., 8:], x[..., 8:])
    lengths = lambda x: np.sqrt(np.asarray(x)[..., :4] ** 2 + np.asarray(x)[..., 4:8] ** 2)
    np.testing.assert_allclose(lengths(out), lengths(x) * rotary_stretch(section, False), rtol=1e-5)


@pytest.mark.parametrize(("width", "share", "turned"), [(14, 1.0, 14), (12, 0.7, 8), (4, 1.0, 4)])
def test_ntk_raises_the_base(tiny, width, share, turned):
    """base · s^(C/(C−2)), C the numbers that are turned: the slowest pair is then as with linear scaling."""
    section = tiny(
        model__positions="rotary",
        model__head_width=width,
        model__rotary_base=700.0,
        model__rotary_share=share,
        model__rotary_scaling="ntk",
        model__rotary_factor=3.0,
    ).model
    base = 700.0 * 3.0 ** (turned / (turned - 2))
    expected = [1 / base ** (i / turned) for i in range(0, turned, 2)]
    np.testing.assert_allclose(rotary_rates(section, False), expected, rtol=1e-12)
    assert expected[-1] == pytest.approx(700.0 ** (-(turned - 2) / turned) / 3.0)


@pytest.mark.parametrize("is_windowed", [False, True])
@pytest.mark.parametrize("window_base", [0.0, 50.0])
@pytest.mark.parametrize(("share", "turned"), [(1.0, 12), (0.7, 8), (0.5, 6)])
def test_rates_of_a_share_a_factor_and_windowed_layers(tiny, is_windowed, window_base, share, turned):
    """base^(−2i/C), C the numbers that are turned; squeezed but where a windowed layer's base is its own."""
    section = tiny(
        model__positions="rotary",
        model__head_width=12,
        model__rotary_base=700.0,
        model__rotary_share=share,
        model__rotary_scaling="linear",
        model__rotary_factor=3.0,
        model__rotary_window_base=window_base,
    ).model
    base, factor = (50.0, 1.0) if is_windowed and window_base else (700.0, 3.0)
    expected = [1 / (factor * base ** (i / turned)) for i in range(0, turned, 2)]
    np.testing.assert_allclose(rotary_rates(section, is_windowed), expected, rtol=1e-12)


def test_layers_turn_by_the_base_of_their_kind(tiny, random_params):
    """Two layers, the first with a window that hides nothing: as one base for both, but in the first layer."""
    hidden = {}
    for name, options in {
        "both": {"model__rotary_base": 300.0, "model__rotary_window_base": 20.0},
        "only windowed": {"model__rotary_base": 20.0},
        "only other": {"model__rotary_base": 300.0},
    }.items():
        section = tiny(model__positions="rotary", model__layers=2, model__windows=(13, 0), **options).model
        model = Transformer(section)
        ids = np.random.default_rng(0).integers(0, 61, (1, 13))
        run = lambda params, model=model, ids=ids: model.apply({"params": params}, ids, np.arange(13)[None], ids * 0)
        for layer in range(2):
            params = random_params(model)
            attention = params["decoder"]["block"]["attention"]
            attention["out"] = jax.tree.map(lambda leaf, layer=layer: leaf.at[layer].set(0), attention["out"])
            hidden[name, 1 - layer] = np.asarray(jax.jit(run)(params).hidden)
    np.testing.assert_allclose(hidden["both", 0], hidden["only windowed", 0], atol=1e-5)
    np.testing.assert_allclose(hidden["both", 1], hidden["only other", 1], atol=1e-5)
    assert np.abs(hidden["only windowed", 0] - hidden["only other", 0]).max() > 0.05


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
    section = tiny(model__positions="relative", model__relative_buckets=7, model__relative_distance=11).model
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
