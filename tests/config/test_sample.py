"""What the sample section refuses: each bad value with one sentence that names its field."""

import math
import re

import pytest

from lm.config import defaults, sample
from lm.config.resolve import check_fields, flatten
from lm.refusal import Refusal

NOT_NUMBERS = (math.nan, math.inf, -math.inf)
BAD = {
    "temperature": (*NOT_NUMBERS, -1.0, "1", True),
    "top_k": (*NOT_NUMBERS, -1, 1.5, 2**53),
    "top_p": (*NOT_NUMBERS, -1.0, 0.0, 1.5),
    "min_p": (*NOT_NUMBERS, -1.0, 1.5),
    "repetition_penalty": (*NOT_NUMBERS, -1.0, 0.0),
    "frequency_penalty": (*NOT_NUMBERS, -101.0, 101.0),
    "presence_penalty": (*NOT_NUMBERS, -101.0, 101.0),
    "no_repeat_ngram": (*NOT_NUMBERS, -1, 1.5),
    "logit_bias": (*((f"a={n}",) for n in ("nan", "inf", "-inf", "1001", "-1001", "", "b")), ("a",), ("=1",), "a=1"),
    "banned": (("",), ("a", ""), (3,), "a"),
    "min_new_tokens": (*NOT_NUMBERS, -1, 1.5),
    "max_new_tokens": (*NOT_NUMBERS, -1, 0, 1.5),
}
GOOD = {
    "temperature": (0.0, 0, 1e-45, 1e30),
    "top_k": (0, 10**9),
    "top_p": (1e-45, 1.0, 1),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-45, 1e30),
    "frequency_penalty": (-100.0, 100.0),
    "logit_bias": (("a=1000", "b==-1000", "c d= 1e-3", "\n=0"),),
    "banned": ((" ",), ("a=b", "\n")),
}
pairs = lambda table: [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), pairs(BAD))
def test_bad_values_are_refused(name, value):
    with pytest.raises(Refusal, match=rf"^sample\.{name} is {re.escape(repr(value))}: it") as refusal:
        check_fields({name: value}, "sample.")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), pairs(GOOD))
def test_extreme_values_are_allowed(name, value):
    check_fields({name: value}, "sample.")
    sample.check(flatten(defaults()) | {f"sample.{name}": value})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"min_new_tokens": 7, "max_new_tokens": 6}, r"sample\.min_new_tokens is 7.*max_new_tokens \(6\)"),
        ({"regex": "a(b"}, r"sample\.regex is 'a\(b': it cannot be followed \(missing \)"),
        ({"regex": "a(?=b)"}, r"sample\.regex is .*: it cannot be followed \(it has a look-ahead"),
        ({"regex": "a", "json_schema": "{}"}, r"sample\.regex and sample\.json_schema are set"),
        ({"logit_bias": ("a=1", "b=2", "a=3")}, r"sample\.logit_bias has 'a' twice"),
    ],
)
def test_combinations_are_refused(fields, words):
    flat = flatten(defaults()) | {f"sample.{name}": value for name, value in fields.items()}
    with pytest.raises(Refusal, match=words):
        sample.check(flat)
