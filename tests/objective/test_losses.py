"""Cross-entropy against float64, whatever the chunks; and never more logits than a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.objective import losses

ROWS, LENGTH, WIDTH, VOCABULARY, PADDED = 3, 10, 7, 11, 17
CHUNKS = [1, 3, 7, 15, 29, 30, 1000]


@pytest.fixture(scope="module")
def case():
    """Return hidden states, head, targets and weights; one row is half padding, one weight is a fraction."""
    generator = np.random.default_rng(0)
    weights = np.ones((ROWS, LENGTH), np.float32)
    weights[1, 5:] = 0
    weights[2, 3] = 0.25
    return (
        generator.normal(size=(ROWS, LENGTH, WIDTH)).astype(np.float32),
        generator.normal(size=(WIDTH, PADDED)).astype(np.float32),
        generator.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32),
        weights,
    )


def _naive(hidden, unembed, targets, weights, bias=None, cap=0.0, smoothing=0.0, z=0.0):
    """Return the sum of losses in float64."""
    total = 0.0
    for b, t in np.ndindex(targets.shape):
        logits = np.float64(hidden[b, t]) @ np.float64(unembed[:, :VOCABULARY])
        logits = logits if bias is None else logits + np.float64(bias[:VOCABULARY])
        logits = cap * np.tanh(logits / cap) if cap else logits
        log_total = np.log(np.exp(logits).sum())
        wanted = np.full(VOCABULARY, smoothing / VOCABULARY)
        wanted[targets[b, t]] += 1 - smoothing
        total += weights[b, t] * (wanted @ (log_total - logits) + z * log_total**2)
    return total


def _ours(chunk, scale=1.0, cap=0.0, smoothing=0.0, z=0.0):
    """Return the function (hidden, unembed, targets, weights, bias) → (scaled sum of losses, sum of weights)."""
    logits, extras = losses.Logits(VOCABULARY, soft_cap=cap), losses.Extras(smoothing, z)

    def loss(hidden, unembed, targets, weights, bias=None):
        total, weight, _ = losses.cross_entropy(hidden, unembed, targets, weights, logits, chunk, extras, bias)
        return scale * total, weight

    return jax.jit(loss)


OPTIONS = [{"cap": 1.5}, {"smoothing": 0.3}, {"z": 0.2}, {"cap": 2.0, "smoothing": 0.2, "z": 0.1}]


@pytest.mark.parametrize(("chunk", "options"), [*((chunk, {}) for chunk in CHUNKS), *((7, each) for each in OPTIONS)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_value_and_gradient(case, chunk, options, has_bias):
    case = (*case, np.random.default_rng(2).normal(size=PADDED).astype(np.float32)) if has_bias else case
    value_only, _ = _ours(chunk, **options)(*case)
    places = (0, 1, 4) if has_bias else (0, 1)
    (value, weight), gradients = jax.value_and_grad(_ours(chunk, 3.0, **options), places, has_aux=True)(*case)
    exact = _naive(*case, **options)
    np.testing.assert_allclose([value_only, value], [exact, 3 * exact], rtol=1e-6)
    assert not options or abs(exact / _naive(*case) - 1) > 1e-3
    assert weight == case[3].sum() and value.dtype == weight.dtype == jnp.float32
    generator = np.random.default_rng(1)
    for place, gradient in zip(places, gradients, strict=True):
        assert gradient.dtype == jnp.float32
        for _ in range(5):
            direction = generator.normal(size=gradient.shape)
            shifted = lambda size, at=place, by=direction: [
                np.float64(part) + size * by if index == at else part for index, part in enumerate(case)
            ]
            slope = 3 * (_naive(*shifted(1e-5), **options) - _naive(*shifted(-1e-5), **options)) / 2e-5
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, OPTIONS[-1]])
def test_rows_are_the_bare_loss_of_each(case, options):
    logits, extras = losses.Logits(VOCABULARY, soft_cap=2.0), losses.Extras(options.get("smoothing", 0), 0.1)
    _, _, (nats, weights, *_) = losses.cross_entropy(*case, logits, 7, extras)
    rows = [_naive(case[0][[b]], case[1], case[2][[b]], case[3][[b]], cap=2.0) for b in range(ROWS)]
    np.testing.assert_allclose(nats, rows, rtol=1e-5)
    np.testing.assert_array_equal(weights, case[3].sum(axis=1))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_targets_that_are_the_likeliest_are_counted_where_asked(case, chunk):
    hidden, unembed, targets, weights = case
    bias = np.random.default_rng(2).normal(size=PADDED).astype(np.float32)
    likeliest = (np.float64(hidden) @ unembed[:, :VOCABULARY] + bias[:VOCABULARY]).argmax(axis=2)
    targets = np.where(np.arange(LENGTH) % 2, likeliest, targets).astype(np.int32)
    count = lambda is_counting: (
        losses.cross_entropy(
            hidden, unembed, targets, weights, losses.Logits(VOCABULARY), chunk, bias_V=bias, is_counting=is_counting
        )[2].correct
    )
    np.testing.assert_array_equal(count(True), ((targets == likeliest) * weights).sum(axis=1))
    assert count(True).all() and not count(False).any()


@pytest.mark.parametrize("options", [{}, *OPTIONS])
def test_padding_of_the_vocabulary_counts_nothing(case, options):
    hidden, unembed, targets, weights = case
    ours = lambda *case: _ours(7, **options)(*case)[0]
    gradient = jax.grad(ours, 1)
    large = unembed.copy()
    large[:, VOCABULARY:] = 100.0
    assert ours(hidden, large, targets, weights) == ours(*case)
    by_unembed = np.asarray(gradient(hidden, large, targets, weights))
    assert not by_unembed[:, VOCABULARY:].any() and by_unembed[:, :VOCABULARY].all()
    exact = ours(hidden, unembed[:, :VOCABULARY], targets, weights)
    np.testing.assert_allclose(ours(*case), exact, rtol=1e-6)


def test_weight_zero_counts_nothing(case):
    hidden, unembed, targets, weights = case
    other_hidden, other_targets = hidden.copy(), targets.copy()
    other_hidden[1, 5:] += 5
    other_targets[1, 5:] = 0
    loss = lambda hidden, targets: _ours(7)(hidden, unembed, targets, weights)
    assert loss(other_hidden, other_targets)[0] == loss(hidden, targets)[0]
    by_hidden = np.asarray(jax.grad(lambda hidden: loss(hidden, targets)[0])(hidden))
    assert not by_hidden[1, 5:].any() and by_hidden[0].all()


@pytest.mark.parametrize(("chunk", "most"), [(1, 3), (3, 3), (7, 6), (15, 15), (29, 15), (30, 30), (1000, 30)])
@pytest.mark.parametrize("differentiate", [False, True])
def test_never_more_logits_than_a_chunk(case, equations, chunk, most, differentiate):
    """A chunk holds at least one position of every row (3), and divides the 10 positions evenly."""
    loss = lambda *case: _ours(chunk)(*case)[0]
    program = equations(jax.grad(loss, (0, 1)) if differentiate else loss, *case)
    shapes = [variable.aval.shape for equation, _ in program for variable in equation.outvars]
    logits = [shape for shape in shapes if PADDED in shape and WIDTH not in shape]
    assert max(int(np.prod(shape)) for shape in logits) == most * PADDED


def test_bfloat16_hidden_states(case):
    hidden, unembed = (jnp.asarray(part, jnp.bfloat16) for part in case[:2])
    (value, weight), gradients = jax.value_and_grad(_ours(7), (0, 1), has_aux=True)(hidden, unembed, *case[2:])
    assert value.dtype == weight.dtype == jnp.float32
    rounded = [np.asarray(part, np.float32) for part in (hidden, unembed)]
    np.testing.assert_allclose(value, _naive(*rounded, *case[2:]), rtol=1e-5)
    exact = jax.grad(lambda *parts: _ours(7)(*parts, *case[2:])[0], (0, 1))(*rounded)
    for gradient, other in zip(gradients, exact, strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(gradient, np.float32), other, atol=0.02 * np.abs(other).max())


def test_sums_are_exact_whatever_the_logits(case):
    hidden, unembed, targets, _ = (
        jnp.tile(part, (40, 1, 1)[: part.ndim]) if part.shape[0] == ROWS else part for part in case
    )
    weights = jnp.ones(targets.shape)
    total, weight, (nats, counts, *_) = losses.cross_entropy(
        hidden, unembed, targets, weights, losses.Logits(VOCABULARY, "bfloat16"), 7
    )
    assert weight == targets.size == 1200 and counts.sum() == 1200
    np.testing.assert_allclose([total, nats.sum()], _naive(hidden, unembed, targets, weights), rtol=2e-3)


def test_log_softmax_parts(case):
    hidden, unembed, *_ = case
    logits, log_total = losses.log_softmax_parts(hidden, unembed, losses.Logits(VOCABULARY))
    assert (np.asarray(logits[..., VOCABULARY:]) == -np.inf).all()
    exact = np.float64(hidden) @ np.float64(unembed[:, :VOCABULARY])
    np.testing.assert_allclose(logits[..., :VOCABULARY], exact, atol=1e-5)
    np.testing.assert_allclose(log_total[..., 0], np.log(np.exp(exact).sum(-1)), rtol=1e-6)
