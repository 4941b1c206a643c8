"""Four hundred sample sections, drawn at random: each runs, or is refused with a sentence, by few programs."""

import math
from collections import Counter

import jax
import ml_collections
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.config import defaults, sample
from lm.config.resolve import check_fields
from lm.generate.generator import Generator
from lm.generate.method import rounded
from lm.refusal import Refusal

CONTEXT = 20
QUIET = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
PROMPTS = ["", "Hello", "of 13 letters", "a prompt of 22 letters"]
ODD = [
    ("a",),
    ("a=nan",),
    ("",),
    -1,
    -1.0,
    math.nan,
    math.inf,
    -math.inf,
    1.5,
    "",
    "1",
    None,
    (),
    1e30,
    1e-45,
    2**60,
    True,
]
USUAL = {
    "temperature": [0.0, 0.8, 1.0, 1e-30, 3.0, 100.0],
    "top_k": [0, 1, 3, 257, 1000],
    "top_p": [1.0, 0.9, 0.1, 1e-6],
    "min_p": [0.0, 0.1, 1.0],
    "repetition_penalty": [1.0, 1.2, 0.5, 1e3],
    "frequency_penalty": [0.0, 0.5, -2.0, 100.0],
    "presence_penalty": [0.0, 1.0, -100.0],
    "no_repeat_ngram": [0, 1, 2, 5, 40],
    "logit_bias": [(), ("a=3",), ("ab=-100", "=x=1000")],
    "banned": [(), ("a", "bc")],
    "min_new_tokens": [0, 1, 5, 24],
    "max_new_tokens": [1, 2, 9, 24, 40],
    "stop": [(), ("a",), ("\x00", "ab")],
    "sequences": [1, 1, 2],
    "seed": [0, 1, 2**31 - 1],
}
WAYS = [{}] * 12 + [
    {"beams": 2},
    {"beams": 2, "length_penalty": -3.0},
    {"draft": "lookup", "draft_tokens": 3},
    {"regex": "[ab]{2,}"},
    {"window": 16},
    {"window": 16, "sinks": 0},
    {"beams": 2, "draft": "lookup"},
    {"regex": "(a"},
    {"window": 21},
]


@pytest.fixture(scope="module")
def generator(byte_bundle):
    return Generator(byte_bundle(model__family="gemma3", model__context=CONTEXT, model__windows=(5, 0)))


@pytest.fixture
def compiled():
    """Return a Counter of the programs that are compiled from here on."""
    names = Counter()

    def count(event, seconds, **words):
        if "backend_compile" in event:
            names[words.get("fun_name")] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    yield names
    jax.monitoring.unregister_event_duration_listener(count)


def test_each_runs_or_is_refused(generator, compiled):
    """Every other field as it is, of one in sixty something odd; at the end as many programs as are promised."""
    seen = Counter()
    field = lambda values: st.integers(0, 59).flatmap(lambda one: st.sampled_from(values if one else ODD))

    @settings(parent=QUIET, max_examples=400, derandomize=True)
    @given(st.fixed_dictionaries({}, optional={name: field(values) for name, values in USUAL.items()}), st.data())
    def run(fields, data):
        try:
            fields |= data.draw(st.sampled_from(WAYS))
            check_fields({f"sample.{name}": value for name, value in fields.items()})
            section = defaults("sample")
            section.update({"max_new_tokens": 9} | fields)
            sample.check({f"sample.{name}": value for name, value in section.items()})
            found = generator([data.draw(st.sampled_from(PROMPTS))], ml_collections.FrozenConfigDict(section))
        except Refusal as refusal:
            assert str(refusal).endswith(".") and len(str(refusal).splitlines()) == 1
            seen["refused"] += 1
            return
        seen["ran"] += 1
        assert len(found) == section.sequences
        for one in found:
            assert 0 < len(one.tokens) <= section.max_new_tokens and len(one.logprobs) == len(one.tokens)
            assert all(0 <= token < 257 for token in one.tokens)
            assert np.isfinite(one.logprobs).all() and max(one.logprobs) <= 1e-5
            assert one.finish_reason in ("stop", "stop_string", "length")

    run()
    assert seen["ran"] > 120 and seen["refused"] > 40, seen
    lengths = {rounded(count, CONTEXT) for count in range(1, CONTEXT + 1)}
    rooms = {rounded(count, 1 << 30) for count in range(1, max(map(len, PROMPTS)) + max(USUAL["max_new_tokens"]) + 1)}
    texts, pairs = len(lengths) + len(rooms), len(lengths) * (len(lengths) + 1) // 2  # of a context, or of a window
    most = dict.fromkeys(("_extend", "begin", "advance", "_drawn", "append"), len(lengths))
    most |= {"extend": texts, "_coming": 2 * texts, "prefill": pairs + len(lengths) * len(rooms)}
    for name, count in most.items():
        assert 0 < compiled.pop(f"jit({name})") <= 2 * count, name  # for one row, and for two
    assert compiled.total() <= 40, compiled  # small ones, once
