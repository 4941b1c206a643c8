"""Samples in HTML: what was filled in is marked, all other text is as it was."""

import pytest

from lm.report import samples


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("if a < b | c:\n", "<pre>if a &lt; b | c:\n</pre>"),
        ("a ⟦b⟧ c", "<pre>a <ins>b</ins> c</pre>"),
        ("⟦x<y‖y⟧⟦‖|⟧", "<pre><mark>x&lt;y</mark><s>y</s><mark></mark><s>|</s></pre>"),
        ("⟦a⟧\n⟦\n⟧⟦open", "<pre><ins>a</ins>\n<ins>\n</ins>⟦open</pre>"),
    ],
)
def test_gaps_are_marked(text, shown):
    found = samples.section(text)
    assert found.endswith(shown) and (found != shown) == ("⟦" in text)  # with a legend where there is something to say
