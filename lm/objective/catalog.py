"""Objective name → the objective."""

from lm.objective.base import Objective
from lm.objective.causal import causal

OBJECTIVES = {"causal": causal}


def objective(section, vocabulary: int, logits_dtype: str) -> Objective:
    """Return the objective that config.objective names, over `vocabulary` token ids."""
    return OBJECTIVES[section.name](section, vocabulary, logits_dtype)
