"""The text of samples.txt in, HTML out: what a model filled in is marked, right or wrong."""

import html
import re

# As lm/evaluate/gaps.py writes what was hidden: ⟦guess⟧ where it is right, ⟦guess‖truth⟧ where it is not.
_GAP = re.compile(r"⟦([^⟦⟧‖]*)(?:‖([^⟦⟧‖]*))?⟧")
_LEGEND = (
    '<p class="note">Hidden from the model, and filled in by it: <ins>as it was</ins>, '
    "<mark>otherwise</mark>, and <s>what was there</s>.</p>"
)


def section(text: str) -> str:
    """Return the samples."""
    shown = f"<pre>{_GAP.sub(_marked, html.escape(text))}</pre>"
    return _LEGEND + shown if _GAP.search(text) else shown


def _marked(found: re.Match) -> str:
    guess, truth = found.groups()
    return f"<ins>{guess}</ins>" if truth is None else f"<mark>{guess}</mark><s>{truth}</s>"
