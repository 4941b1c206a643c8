"""Guided texts against plain draws, against all that a small choice can be, and against the uncached model."""

import functools
import itertools
import sys
import types

import jax
import numpy as np
import pytest

from lm.config import sample
from lm.config.resolve import check_fields, flatten
from lm.generate.generator import generate
from lm.refusal import Refusal

PROMPTS = ["Hello", "a", "nine long"]


@pytest.fixture
def rewarded(sampling, monkeypatch):
    """Return a function: a reward and fields → the section; the texts that it was asked for lie in its `asked`."""

    def make(reward, **fields):
        module = types.ModuleType("judges")
        module.judge = lambda text: make.asked.append(text) or reward(text)
        monkeypatch.setitem(sys.modules, "judges", module)
        return sampling(**{"temperature": 1.0, "reward": "judges:judge", "candidates": 5} | fields)

    make.asked = []
    return make


@pytest.fixture(scope="module")
def bundle(byte_bundle):
    return byte_bundle(model__family="llama", model__layers=1)


def _capitals(text):
    return sum(letter.isupper() for letter in text)


def test_the_best_of_the_plain_draws_are_taken(bundle, sampling, rewarded):
    fields = {"max_new_tokens": 12, "top_k": 30}
    plain = generate(bundle, PROMPTS, sampling(temperature=1.0, sequences=5, **fields))
    guided = generate(bundle, PROMPTS, rewarded(_capitals, sequences=2, **fields))
    for number, prompt in enumerate(PROMPTS):
        drawn = plain[5 * number : 5 * number + 5]
        rewards = [_capitals(prompt + one.text) for one in drawn]
        best = sorted(drawn, key=lambda one: -_capitals(prompt + one.text))[:2]
        chosen = guided[2 * number : 2 * number + 2]
        assert [one[:4] for one in chosen] == [one[:4] for one in best]
        assert [one.numbers["reward"] for one in chosen] == sorted(rewards, reverse=True)[:2]
        assert all(one.numbers["mean_reward"] == pytest.approx(np.mean(rewards)) for one in chosen)
        assert chosen[0].numbers["kl_bound"] == pytest.approx(np.log(5) - 4 / 5)
        assert len(set(rewards)) > 1


def test_one_long_step_chooses_among_the_same_texts(bundle, rewarded):
    """With a small scale, it takes the best."""
    fields = {"max_new_tokens": 12, "top_k": 30}
    once = generate(bundle, PROMPTS, rewarded(_capitals, **fields))
    steps = rewarded(_capitals, guidance="stepwise", reward_every=99, reward_scale=1e-3, **fields)
    for best, one in zip(once, generate(bundle, PROMPTS, steps), strict=True):
        assert one.numbers["reward"] == best.numbers["reward"]
        assert one.numbers["mean_reward"] == best.numbers["mean_reward"]


@functools.partial(jax.jit, static_argnums=0)
def _look(model, params, ids):
    out = model.apply({"params": params}, ids, np.arange(ids.shape[1])[None], np.ones(ids.shape, int))
    return jax.nn.log_softmax((out.hidden[0] @ out.unembed)[:, :257])


def _scores(bundle, ids):
    """Return the log-probabilities of what follows the ids, without a cache."""
    return np.asarray(_look(bundle.model, bundle.params, np.array([[*ids, *[0] * (13 - len(ids))]])))[len(ids) - 1]


def test_steps_are_drawn_as_enumerated(bundle, rewarded):
    """Two steps of a token, among three candidates of three likeliest tokens: all that can be drawn is counted out."""
    texts, count, scale = 1500, 3, 0.7
    reward = lambda text: sum(map(ord, text)) % 5 / 2
    first = bundle.tokenizer.encode("Hi").tolist()

    def step(ids):
        """Return the three tokens, the model's shares of them, and the guided ones."""
        scores = _scores(bundle, ids)
        tokens = np.argsort(-scores)[:3]
        shares = np.exp(scores[tokens]) / np.exp(scores[tokens]).sum()
        raised = np.exp([reward(bundle.tokenizer.decode([*ids, token])) / scale for token in tokens])
        guided = np.zeros(3)
        for drawn in itertools.product(range(3), repeat=count):
            drawn = list(drawn)
            np.add.at(guided, drawn, np.prod(shares[drawn]) * raised[drawn] / raised[drawn].sum())
        return tokens.tolist(), shares, guided

    expected, kl = {}, 0.0
    for token, share, chance in zip(*step(first), strict=True):
        for other, later_share, later_chance in zip(*step([*first, token]), strict=True):
            expected[token, other] = texts * chance * later_chance
            kl += chance * later_chance * np.log(chance * later_chance / share / later_share)
    section = rewarded(
        reward,
        guidance="stepwise",
        candidates=count,
        reward_every=1,
        reward_scale=scale,
        max_new_tokens=2,
        top_k=3,
        sequences=texts,
    )
    written = generate(bundle, ["Hi"], section)
    seen = dict.fromkeys(expected, 0)
    for one in written:
        seen[tuple(one.tokens)] += 1
    distance = sum((seen[pair] - mean) ** 2 / mean for pair, mean in expected.items())
    assert min(expected.values()) > 5 and distance < 26.1  # 8 degrees of freedom: one time in a thousand
    estimates = np.array([one.numbers["kl"] for one in written])
    bounds = np.array([one.numbers["kl_bound"] for one in written])
    assert kl > 0.1 and np.mean(estimates) == pytest.approx(kl, rel=0.15) and np.mean(bounds) > 1.2 * kl


def _stepwise(rewarded, **fields):
    return rewarded(_capitals, **{"guidance": "stepwise", "reward_every": 5, "max_new_tokens": 31} | fields)


def test_steps_have_the_full_models_scores(bundle, rewarded):
    """Beyond twice the context, which prompts of different lengths fill in the middle of different steps."""
    assert bundle.config.model.context == 13
    for prompt, one in zip(PROMPTS, generate(bundle, PROMPTS, _stepwise(rewarded)), strict=True):
        window, expected = bundle.tokenizer.encode(prompt).tolist(), []
        for token in one.tokens:
            window = window[-6:] if len(window) >= 13 else window
            expected.append(_scores(bundle, window)[token])
            window.append(token)
        assert len(one.tokens) == 31 and one.finish_reason == "length"
        np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)


def test_company_changes_nothing_and_seeds_repeat(bundle, rewarded):
    together = generate(bundle, PROMPTS, _stepwise(rewarded, sequences=2))
    again = generate(bundle, PROMPTS, _stepwise(rewarded, sequences=2, seed=1))
    alone = generate(bundle, PROMPTS[1:2], _stepwise(rewarded, sequences=2))
    assert [one.tokens for one in together[2:4]] == [one.tokens for one in alone]
    assert [one.numbers for one in together[2:4]] == [one.numbers for one in alone]
    assert len({tuple(one.tokens) for one in together + again}) == 12


@pytest.mark.parametrize("guidance", ["best_of", "stepwise"])
def test_stop_strings_and_ends_end_texts(parrot, rewarded, guidance):
    """The reward is for prompt and text, without the stop string."""
    bundle = parrot("abcdefg", 64)
    fields = {"guidance": guidance, "max_new_tokens": 20, "top_k": 1, "candidates": 3, "reward_every": 4}
    pieces = []
    watch = lambda index, text: pieces.append(text)
    (one,) = generate(bundle, ["ab"], rewarded(len, stop=("gabcd",), **fields), watch)
    assert one.text == "cdef" == "".join(pieces) and one.finish_reason == "stop_string"
    assert rewarded.asked[-1] == "abcdef" and one.numbers["reward"] == 6
    rewarded.asked.clear()
    usual, bundle.tokenizer.end = bundle.tokenizer.end, ord("f")
    try:
        (one,) = generate(bundle, ["ab"], rewarded(len, **fields))
        assert one.tokens == list(b"cdef") and one.text == "cde" and one.finish_reason == "stop"
        assert rewarded.asked[-1] == "abcde"
    finally:
        bundle.tokenizer.end = usual


def test_texts_that_have_ended_are_ways_on(bundle, rewarded):
    """Where short texts are better, one that ends is kept; some go on for a while."""
    usual, bundle.tokenizer._others = bundle.tokenizer._others, tuple(range(128, 256))
    try:
        fields = {"guidance": "stepwise", "reward_every": 3, "reward_scale": 0.01, "max_new_tokens": 12, "sequences": 7}
        short = generate(bundle, PROMPTS[:1], rewarded(lambda text: -len(text), **fields))
        long = generate(bundle, PROMPTS[:1], rewarded(len, **fields))
    finally:
        bundle.tokenizer._others = usual
    assert all(one.finish_reason == "stop" and len(one.tokens) <= 3 for one in short)
    assert max(len(one.tokens) for one in long) > 6


def test_what_is_chosen_is_shown_as_it_grows(bundle, rewarded):
    texts, pieces = [""] * 3, []

    def watch(index, text):
        texts[index] += text
        pieces.append(index)

    written = generate(bundle, PROMPTS, _stepwise(rewarded), watch)
    assert (
        texts == [one.text for one in written] == [one.text for one in generate(bundle, PROMPTS, _stepwise(rewarded))]
    )
    assert pieces[:3] == [0, 1, 2] and len(pieces) > 9


def test_an_answer_is_rewarded_alone(byte_bundle, rewarded):
    bundle = byte_bundle(
        model__architecture="encoder_decoder", model__positions="relative", model__encoder_layers=1, model__layers=1
    )
    for guidance in ("best_of", "stepwise"):
        rewarded.asked.clear()
        fields = {"guidance": guidance, "max_new_tokens": 99, "reward_every": 5}
        (one,) = generate(bundle, ["Hello"], rewarded(_capitals, **fields))
        assert len(one.tokens) == 12 and one.finish_reason == "length"  # as many as the context has room for
        assert one.text in rewarded.asked and not any("Hello" in text for text in rewarded.asked)


def test_more_candidates_and_more_choices_are_rewarded(bundle, rewarded):
    """And lead further from the model."""
    fields = {"max_new_tokens": 12, "top_k": 60}
    few = generate(bundle, PROMPTS, rewarded(_capitals, candidates=2, **fields))
    many = generate(bundle, PROMPTS, rewarded(_capitals, candidates=16, **fields))
    steps = generate(
        bundle,
        PROMPTS,
        rewarded(_capitals, candidates=16, guidance="stepwise", reward_every=2, reward_scale=0.2, **fields),
    )
    mean = lambda written, name: np.mean([one.numbers[name] for one in written])
    drawn = mean(many, "mean_reward")
    assert drawn < mean(few, "reward") < mean(many, "reward") < mean(steps, "reward")
    assert 0 < mean(few, "kl") < mean(many, "kl") < mean(steps, "kl") < mean(steps, "kl_bound")


def _check(section):
    check_fields(section.to_dict(), "sample.")
    sample.check(flatten(section, "sample."))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": 0.0}, "sample.temperature is 0"),
        ({"candidates": 3, "sequences": 4}, r"sample.candidates is 3: .* sample.sequences \(4\)"),
        ({"candidates": 1}, "sample.candidates"),
        ({"reward": "judge"}, "sample.reward .*module:function"),
        ({"reward_scale": 0.0}, "sample.reward_scale"),
        ({"guidance": "best"}, "sample.guidance"),
    ],
)
def test_what_cannot_guide_is_refused(sampling, fields, words):
    with pytest.raises(Refusal, match=words):
        _check(sampling(**{"temperature": 1.0, "reward": "judges:judge"} | fields))


def test_steps_need_no_more_candidates_than_texts(sampling):
    _check(sampling(temperature=1.0, reward="judges:judge", guidance="stepwise", candidates=3, sequences=4))
