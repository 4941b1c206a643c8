"""Objective name → the objective."""

from lm.objective.base import Objective, Setting
from lm.objective.causal import causal
from lm.objective.masked import masked

OBJECTIVES = {"causal": causal, "masked": masked}


def objective(section, setting: Setting) -> Objective:
    """Return the objective that config.objective names, for such a model and tokenizer."""
    return OBJECTIVES[section.name](section, setting)
