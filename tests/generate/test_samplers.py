"""Samplers against NumPy, and draws against the probabilities that they should have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lm.generate import samplers

LOGITS = np.random.default_rng(0).normal(0, 2, size=(5, 13)).astype(np.float32)


def _softmax(logits):
    raised = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def _top_k(logits, count):
    out = np.full_like(logits, -np.inf)
    for row, kept in zip(logits, out, strict=True):
        likeliest = np.argsort(-row)[:count]
        kept[likeliest] = row[likeliest]
    return out


def _top_p(logits, share):
    out = np.full_like(logits, -np.inf)
    for row, kept in zip(logits, out, strict=True):
        held = 0.0
        for token in np.argsort(-row):
            kept[token] = row[token]
            held += _softmax(row)[token]
            if held >= share:
                break
    return out


@pytest.mark.parametrize("count", [1, 4, 13, 50])
def test_top_k(count):
    np.testing.assert_array_equal(samplers.top_k(LOGITS, count), _top_k(LOGITS, count))


@pytest.mark.parametrize("share", [1e-6, 0.3, 0.75, 0.97])
def test_top_p(share):
    np.testing.assert_array_equal(samplers.top_p(LOGITS, share), _top_p(LOGITS, share))


def test_top_p_of_all_keeps_all():
    np.testing.assert_array_equal(samplers.top_p(LOGITS, 1.0), LOGITS)


def test_top_k_then_top_p():
    ours = samplers.top_p(samplers.top_k(LOGITS, 5), 0.8)
    np.testing.assert_array_equal(ours, _top_p(_top_k(LOGITS, 5), 0.8))
    assert (np.isfinite(ours).sum(1) < 5).any()


def test_temperature():
    np.testing.assert_allclose(samplers.temperature(LOGITS, 0.7), LOGITS / 0.7, rtol=1e-6)


def test_no_temperature_takes_the_likeliest(sampling):
    tokens = samplers.draw(jax.random.key(0), jnp.asarray(LOGITS), sampling(temperature=0.0))
    np.testing.assert_array_equal(tokens, LOGITS.argmax(1))
    assert tokens.dtype == jnp.int32


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 0.6}, {"temperature": 1.7}, {"top_k": 4}, {"top_p": 0.8}, {"top_k": 6, "top_p": 0.7}]
)
def test_draws_have_their_probabilities(sampling, fields):
    """χ² of 20,000 draws; the sampler's own order: temperature, top-k, top-p."""
    section = sampling(**{"temperature": 1.0} | fields)
    logits = LOGITS[:1] / section.temperature
    logits = _top_k(logits, section.top_k) if section.top_k else logits
    probabilities = _softmax(_top_p(logits, section.top_p) if section.top_p < 1 else logits)[0]
    many = jnp.asarray(np.repeat(LOGITS[:1], 20_000, axis=0))
    counts = np.bincount(samplers.draw(jax.random.key(1), many, section), minlength=13)
    can_be = probabilities > 0
    assert not counts[~can_be].any()
    expected = 20_000 * probabilities[can_be]
    distance = ((counts[can_be] - expected) ** 2 / expected).sum()
    assert distance < stats.chi2.ppf(0.999, can_be.sum() - 1)
    if not fields:
        assert (~can_be).sum() == 0
