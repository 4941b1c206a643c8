"""Samplers beside Transformers' processors, put together its own way: the cases of the golden file, other logits."""

import jax
import make_samplers
import ml_collections
import numpy as np
import pytest

from lm.config import defaults
from lm.generate import samplers

adjusted, log_probabilities = jax.jit(samplers.adjusted), jax.jit(samplers.log_probabilities)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", make_samplers.CASES, ids=lambda case: " ".join(case) or "none")
def test_logits_are_theirs(numbers, case):
    section = defaults("sample")
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in case.items()}
    section.update({"temperature": 1.0} | fields)
    settings = samplers.settings(ml_collections.FrozenConfigDict(section), numbers)
    for seed in range(1, 6):
        logits, ids, begun, lengths, ends = make_samplers.case_of(np.random.default_rng(seed))
        expected, drawn = make_samplers.theirs(case, logits, ids, begun, lengths, ends)
        text = samplers.Text(ids, begun, lengths)
        np.testing.assert_allclose(adjusted(logits, text, settings), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_probabilities(logits, text, settings), drawn, rtol=1e-5, atol=1e-5)
