"""Divergences of a choice by reward, against those of small models whose every draw is enumerated."""

import itertools
import math

import numpy as np
import pytest

from lm.generate import divergence

LAWS = {  # reward of each text, its probability
    "two": ((0.0, 1.0), (0.5, 0.5)),
    "rare": ((0.0, 1.0), (0.9, 0.1)),
    "three": ((-0.5, 0.2, 1.3), (0.2, 0.5, 0.3)),
    "tied": ((0.0, 2.0, 2.0, 2.5), (0.4, 0.3, 0.1, 0.2)),
}


def _kl(chosen, model):
    return float(np.sum(chosen * np.log(chosen / model)))


def _drawn(law, count):
    """Yield (texts, their probability) of all ways to draw so many candidates."""
    shares = np.array(LAWS[law][1])
    for texts in itertools.product(range(len(shares)), repeat=count):
        yield np.array(texts), np.prod(shares[list(texts)])


@pytest.mark.parametrize(("count", "rank"), [(2, 1), (8, 1), (100, 1), (5, 2), (7, 7), (11, 4)])
def test_ranked_bound_is_the_divergence_of_a_rank_from_uniform(count, rank):
    """The density of Beta(n-r+1, r), by the gamma function, integrated against its logarithm."""
    shares = (np.arange(100_000) + 0.5) / 100_000
    logs = math.lgamma(count + 1) - math.lgamma(count - rank + 1) - math.lgamma(rank)
    logs = logs + (count - rank) * np.log(shares) + (rank - 1) * np.log1p(-shares)
    assert divergence.ranked_bound(count, rank) == pytest.approx(np.mean(np.exp(logs) * logs), rel=1e-3)


@pytest.mark.parametrize("count", [2, 8, 64])
def test_ranked_bound_of_the_best_is_the_published_one(count):
    assert divergence.ranked_bound(count) == pytest.approx(math.log(count) - (count - 1) / count)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("count", "rank"), [(3, 1), (5, 1), (4, 2), (5, 5)])
def test_ranked_is_near_the_exact_divergence_in_the_mean(law, count, rank):
    rewards, shares = map(np.array, LAWS[law])
    chosen, estimate = np.zeros(len(shares)), 0.0
    for texts, probability in _drawn(law, count):
        found = rewards[texts]
        is_tied = found == np.sort(found)[-rank]
        np.add.at(chosen, texts[is_tied], probability / is_tied.sum())
        estimate += probability * divergence.ranked(found, rank)
    exact = _kl(chosen, shares)
    assert estimate == pytest.approx(exact, abs=0.05, rel=0.1)
    assert exact < divergence.ranked_bound(count, rank)


def test_ranked_without_ties_is_the_bound_and_with_nothing_else_is_zero():
    assert divergence.ranked(np.arange(7.0), 2) == divergence.ranked_bound(7, 2)
    assert divergence.ranked(np.ones(7), 3) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("count", "scale"), [(2, 1.0), (4, 1.0), (4, 0.5), (5, 2.0)])
def test_drawn_is_near_the_exact_divergence_in_the_mean(law, count, scale):
    """And no further above or below than a tenth; the bound is above."""
    rewards, shares = map(np.array, LAWS[law])
    chosen, estimate, bound = np.zeros(len(shares)), 0.0, 0.0
    for texts, probability in _drawn(law, count):
        raised = np.exp(rewards[texts] / scale)
        np.add.at(chosen, texts, probability * raised / raised.sum())
        estimate += probability * divergence.drawn(rewards[texts] / scale)
        bound += probability * divergence.drawn_bound(rewards[texts] / scale)
    exact = _kl(chosen, shares)
    assert exact > 0.002
    assert estimate == pytest.approx(exact, rel=0.25 if count == 2 else 0.12)
    assert exact < bound


def test_scores_however_far_apart_are_drawn_from():
    scores = np.array([-np.inf, -1e300, 0.0, -1e200])
    np.testing.assert_array_equal(divergence.weights(scores), [0, 0, 1, 0])
    assert divergence.drawn_bound(scores) == pytest.approx(math.log(4))
    near = divergence.drawn(np.array([-100.0, -50.0, 0.0, -25.0]))
    assert divergence.drawn(scores) == pytest.approx(near, abs=1e-6) and 0 < near < math.log(4)
    assert divergence.drawn(np.zeros(5)) == pytest.approx(0, abs=1e-6)
