"""What several tests of the model compare with."""

import numpy as np
import pytest


@pytest.fixture
def slow_attention():
    """Return softmax(q · k / √C) · v in float64, one query at a time."""

    def attention(query_BTHC, key_BSKC, value_BSKC, allowed_BTS):
        rows, length, heads, width = query_BTHC.shape
        group = heads // key_BSKC.shape[2]
        out = np.zeros(query_BTHC.shape)
        for b, t, h in np.ndindex(rows, length, heads):
            seen = np.flatnonzero(allowed_BTS[b, t])
            scores = [
                sum(float(query_BTHC[b, t, h, c]) * float(key_BSKC[b, s, h // group, c]) for c in range(width))
                for s in seen
            ]
            weights = np.exp(np.array(scores) / width**0.5)
            for weight, s in zip(weights / weights.sum(), seen, strict=True):
                out[b, t, h] += weight * value_BSKC[b, s, h // group]
        return out

    return attention
