"""What a checkpoint says of sampling becomes the default of what the user does not say."""

import json

import pytest

from lm.config import schema
from lm.config.resolve import flatten
from lm.generate import defaults
from lm.refusal import Refusal


@pytest.mark.parametrize(
    ("said", "wanted", "left"),
    [
        ({}, {}, []),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1, 2], "min_p": None},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
            [],
        ),
        ({"do_sample": True, "top_p": 0.9}, {"temperature": 1.0, "top_p": 0.9}, []),
        ({"do_sample": False, "temperature": 0.6, "transformers_version": "4.0"}, {"temperature": 0.0}, []),
        (
            {"num_beams": 4, "length_penalty": 2, "early_stopping": True, "no_repeat_ngram_size": 3, "max_length": 99},
            {"beams": 4, "length_penalty": 2, "early_stopping": "first", "no_repeat_ngram": 3},
            ["max_length"],
        ),
        ({"early_stopping": "never", "stop_strings": "a"}, {"early_stopping": "never", "stop": ("a",)}, []),
        ({"stop_strings": ["a", "b"], "early_stopping": False}, {"stop": ("a", "b"), "early_stopping": "likely"}, []),
        (
            {"temperature": -1, "top_p": 1.5, "top_k": "a", "early_stopping": [], "stop_strings": 3, "min_p": [0.1]},
            {},
            [
                "temperature (-1)",
                "top_p (1.5)",
                "top_k ('a')",
                "early_stopping ([])",
                "stop_strings (3)",
                "min_p ([0.1])",
            ],
        ),
    ],
)
def test_names_and_values_are_ours(said, wanted, left):
    found, passed_over = defaults.published(said)
    assert found == {f"sample.{name}": value for name, value in wanted.items()} and passed_over == left


def _section(tiny, tokenizer, said, given, **own):
    files, words = {"generation_config.json": json.dumps(said)}, []
    tokenizer.published = files
    given = {f"sample.{name}": value for name, value in given.items()}
    own = {f"sample__{name}": value for name, value in own.items()}
    found = flatten(defaults.section(tiny(**own), tokenizer, given, words.append))
    usual = flatten(schema.defaults("sample"))
    return {name: value for name, value in found.items() if value != usual[name]}, words


@pytest.fixture
def tokenizer(tiny):
    from lm.text.learn import learn

    return learn(tiny(data__tokenizer="byte").data, [])


def test_what_is_given_wins_then_the_run_then_the_file(tiny, tokenizer):
    said = {"temperature": 0.6, "top_k": 20, "top_p": 0.9}
    found, words = _section(tiny, tokenizer, said, {"temperature": 0.8}, top_k=7)
    assert found == {"top_k": 7, "top_p": 0.9} and words == []


def test_what_is_passed_over_is_said_in_a_line(tiny, tokenizer):
    found, words = _section(tiny, tokenizer, {"top_p": 3, "max_length": 9, "top_k": 2}, {})
    assert found == {"top_k": 2}
    assert words == ["generation_config.json: passed over top_p (3), max_length"]
    (line,) = _section(tiny, tokenizer, {f"\x1b{number}": 1 for number in range(99)}, {})[1]
    assert line.isprintable() and len(line) < 200


def test_the_file_gives_way_where_it_does_not_go_with_what_is_given(tiny, tokenizer):
    found, words = _section(tiny, tokenizer, {"num_beams": 4, "top_k": 2}, {"draft": "lookup"})
    assert found == {"draft": "lookup"} and len(words) == 1 and "sample.beams and sample.draft are set" in words[0]
    with pytest.raises(Refusal, match=r"sample.beams and sample.draft are set"):
        _section(tiny, tokenizer, {"top_k": 2}, {"draft": "lookup", "beams": 2})


def test_without_a_tokenizer_there_is_no_file(tiny):
    assert defaults.section(tiny(), None, {"sample.top_k": 3}).top_k == 3
