"""Where libtpu is not installed; what there is with it: tests/parallel/test_tpu.py."""

import sys

import pytest

from lm.parallel import topology
from lm.refusal import Refusal


def test_without_libtpu_the_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(Refusal, match=r"topology 'v5e:2x4' needs libtpu: pip install 'lm\[tpu\]'\.$"):
        topology.devices("v5e:2x4")
