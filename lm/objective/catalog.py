"""Objective name → the objective."""

from lm.config.objective import check_head
from lm.objective.base import Objective, Setting
from lm.objective.causal import causal
from lm.objective.classify import classify
from lm.objective.masked import masked
from lm.objective.mixture import mixture
from lm.objective.prefix import prefix
from lm.objective.seq2seq import seq2seq
from lm.objective.span import span

OBJECTIVES = {
    "causal": causal,
    "prefix": prefix,
    "masked": masked,
    "span": span,
    "mixture": mixture,
    "seq2seq": seq2seq,
    "classify": classify,
}


def objective(section, setting: Setting) -> Objective:
    """Return the objective that config.objective names, for such a model and tokenizer.

    Raises:
      Refusal: model or tokenizer lack what it needs.
    """
    check_head(section.name, setting.head)
    return OBJECTIVES[section.name](section, setting)
