"""Rewards of candidates in; how far choosing among them leaves the model out: KL divergences, in nats.

The candidates are independent draws from the model, and what is chosen has the guided distribution q, the model's
being p. Since only rewards decide, q/p depends on a candidate's reward alone, and KL(q‖p) on their distribution.
"""

import math

import numpy as np

_FAR = 30.0  # difference of scores beyond which the lower is never chosen; nothing changes by more than exp(-30)
_STEP = 0.5  # of the integral's logarithmic axis; its error is below 1e-8
_POINTS = 1000  # of an integral over ranks


def ranked_bound(count: int, rank: int = 1) -> float:
    """Return an upper bound of KL(q‖p) where of `count` candidates the one of a rank by reward is chosen.

    For the best it is log n - (n-1)/n (Stiennon et al. 2020, arXiv 2009.01325, appendix G.3; Beirami et al. 2024, arXiv
    2401.01879, theorem 3.1: a bound, reached where no two rewards are equal). For rank r, likewise, the share of the
    model's texts below the chosen one is distributed as Beta(n-r+1, r), whose divergence from uniform this is.
    """
    harmonic = lambda number: sum(1 / i for i in range(1, number + 1))
    below, above, whole = count - rank, rank - 1, harmonic(count)
    density = math.log(count * math.comb(count - 1, above))
    return density - below * (whole - harmonic(below)) - above * (whole - harmonic(above))


def ranked(rewards: np.ndarray, rank: int = 1) -> float:
    """Return an estimate of KL(q‖p) where the candidate of a rank is chosen: the bound, less what ties take from it.

    Among texts of equal reward the choice is the model's. So of Beta(n-r+1, r) counts only how much of it falls on the
    chosen reward's interval of shares, not how it lies there: that divergence from uniform is taken off. The interval
    is that of the other candidates.
    """
    rewards = np.asarray(rewards, np.float64)
    count, chosen = len(rewards), np.sort(rewards)[-rank]
    others = count - 1
    low = np.sum(rewards < chosen) / others
    width = (np.sum(rewards == chosen) - 1) / others
    if width == 0:
        return ranked_bound(count, rank)
    shares = low + width * (np.arange(_POINTS) + 0.5) / _POINTS
    logs = (count - rank) * np.log(shares) + (rank - 1) * np.log1p(-shares)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    return ranked_bound(count, rank) - float(np.sum(_informed(weights * _POINTS)) / _POINTS)


def weights(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities in proportion to exp(score), of which the scores may lie infinitely far apart."""
    shares = np.exp(scores - np.max(scores))
    return shares / shares.sum()


def drawn_bound(scores: np.ndarray) -> float:
    """Return KL(weights‖uniform), whose mean over candidates is an upper bound of KL(q‖p), q drawing by the weights.

    It is the divergence of candidates and choice together, from a choice without rewards: leaving out the candidates
    that were not chosen can only lessen it.
    """
    return float(np.mean(_informed(len(scores) * weights(scores))))


def drawn(scores: np.ndarray) -> float:
    """Return an estimate of KL(q‖p) where one of K candidates is drawn in proportion to exp(score).

    A candidate of e = exp(score) beside K-1 others that the model draws is chosen in the mean q/p = K E[e / (e + Σ
    others)], and since 1/x = ∫ exp(-t x) dt, that is K e ∫ exp(-t e) M(t)^(K-1) dt with M(t) = E[exp(-t others)]. With
    the candidates for the model, this gives a KL(q‖p); what so few of them make it too small by, to the first order in
    1/K, the jackknife puts back (Quenouille 1956), which leaves out each of them once: so one estimate may be negative.
    """
    scores = _close(np.asarray(scores, np.float64))
    count = len(scores)
    logs_T = np.arange(-40, 8 - scores.min(), _STEP)  # of t
    grown_TK = np.minimum(logs_T[:, None] + scores, 50)
    seen_TK = np.exp(-np.exp(grown_TK))
    density_TK = _STEP * count * np.exp(grown_TK) * seen_TK
    mean_T = seen_TK.mean(axis=1)
    others_TK = np.maximum(count * mean_T[:, None] - seen_TK, 0) / (count - 1)
    whole = np.mean(_informed(mean_T ** (count - 1) @ density_TK))
    ratios_KK = (others_TK ** (count - 1)).T @ density_TK
    parts = _informed(ratios_KK)[~np.eye(count, dtype=bool)]
    return float(count * whole - (count - 1) * np.mean(parts))


def _close(scores: np.ndarray) -> np.ndarray:
    """Return scores of the same order, the highest 0, that follow one another closely enough to be integrated over."""
    ordered, places = np.unique(scores, return_inverse=True)
    steps = np.minimum(np.diff(ordered), _FAR)
    levels = np.concatenate([[0.0], np.cumsum(steps)])
    return (levels - levels[-1])[places]


def _informed(ratios: np.ndarray) -> np.ndarray:
    """Return x log x."""
    return ratios * np.log(np.where(ratios > 0, ratios, 1))
