"""Objective name → the objective."""

from lm.objective.base import Objective
from lm.objective.causal import causal
from lm.objective.losses import Logits

OBJECTIVES = {"causal": causal}


def objective(section, logits: Logits) -> Objective:
    """Return the objective that config.objective names, for a model with such logits."""
    return OBJECTIVES[section.name](section, logits)
