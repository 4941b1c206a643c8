"""What several tests of the model compare with."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def slow_attention():
    """Return softmax(q · k · scale) · v in float64, one query at a time; scale None: 1 / √C.

    With a soft cap, scores s are cap · tanh(s / cap); then bias `(B or 1, H, T, S)` is added.
    """

    def attention(query_BTHC, key_BSKC, value_BSKC, allowed_BTS, bias_BHTS=None, soft_cap=None, scale=None):
        rows, length, heads, width = query_BTHC.shape
        group = heads // key_BSKC.shape[2]
        out = np.zeros(query_BTHC.shape)
        for b, t, h in np.ndindex(rows, length, heads):
            seen = np.flatnonzero(allowed_BTS[b, t])
            scores = np.array(
                [
                    sum(float(query_BTHC[b, t, h, c]) * float(key_BSKC[b, s, h // group, c]) for c in range(width))
                    for s in seen
                ]
            )
            scores = scores * (width**-0.5 if scale is None else scale)
            if soft_cap is not None:
                scores = soft_cap * np.tanh(scores / soft_cap)
            if bias_BHTS is not None:
                scores = scores + np.asarray(bias_BHTS, np.float64)[min(b, len(bias_BHTS) - 1), h, t, seen]
            weights = np.exp(scores)
            for weight, s in zip(weights / weights.sum(), seen, strict=True):
                out[b, t, h] += weight * value_BSKC[b, s, h // group]
        return out

    return attention
