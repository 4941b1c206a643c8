"""Functions that are a reward, and what is not."""

import sys
import types

import numpy as np
import pytest

from lm.generate.reward import load
from lm.refusal import Refusal


@pytest.fixture
def named(monkeypatch):
    """Return a function: a value → the name of a reward that it is."""

    def make(value):
        module = types.ModuleType("judges")
        module.letters = value
        monkeypatch.setitem(sys.modules, "judges", module)
        return "judges:letters"

    return make


@pytest.mark.parametrize("value", [3, 3.0, True, np.float32(3), np.array(3), -1e300])
def test_numbers_are_rewards(named, value):
    assert load(named(lambda text: value))("text") == float(value)


@pytest.mark.parametrize("value", [None, "3", float("nan"), float("inf"), 10**400, 3j, [3], np.zeros(2), int])
def test_what_is_no_finite_number_is_refused(named, value):
    with pytest.raises(Refusal, match=r"judges:letters gave .* for 'a text': it must give a finite number"):
        load(named(lambda text: value))("a text")


def test_what_a_reward_raises_is_told(named):
    def fail(text):
        raise KeyError("two\nlines")

    with pytest.raises(Refusal, match=r"raised KeyError \('two.*lines'\), given 'xxx.*\.\.\.\.$") as refusal:
        load(named(fail))("x" * 99)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:letters", "no module 'nowhere'"),
        ("judges.inner:letters", "no module 'judges.inner'"),
        ("judges:leters", r"judges has no function 'leters' \(did you mean 'letters'"),
        ("judges:__name__", "judges has no function '__name__'"),
        ("broken:letters", r"importing it raised ZeroDivisionError \(division by zero\)"),
        ("..judges:letters", "importing it raised TypeError"),
    ],
)
def test_what_is_no_function_is_refused(named, tmp_path, monkeypatch, name, words):
    named(len)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refusal, match=words):
        load(name)
