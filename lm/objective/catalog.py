"""Objective name → the objective."""

from lm.objective.base import Objective, Setting
from lm.objective.causal import causal
from lm.objective.classify import classify
from lm.objective.masked import masked
from lm.objective.mixture import mixture
from lm.objective.prefix import prefix
from lm.objective.seq2seq import seq2seq
from lm.objective.span import span
from lm.refusal import Refusal

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
    if (section.name == "classify") != (setting.head == "classify") or setting.head == "none":
        raise Refusal(
            f"model.head is {setting.head!r}, but objective.name is {section.name!r}: 'classify' goes with 'classify', "
            "all others with 'language' or 'masked'."
        )
    return OBJECTIVES[section.name](section, setting)
