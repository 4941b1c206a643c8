"""Searches against all texts there are, against a search written out over lists, and against greedy."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest

from lm.generate import beam, prepare
from lm.generate.generator import generate
from lm.generate.method import Ready
from lm.generate.sampling import sample
from lm.model.transformer import Tokens, Transformer
from lm.text.tokenizer import Specials

VOCABULARY, FEW, NEW = 5, 4, 6
PROMPTS = [[1, 4, 2], [3], [2, 2, 1, 4, 3, 1]]
FORMS = {
    "decoder": {"model__family": "llama", "model__layers": 1},
    "windows": {"model__family": "llama", "model__layers": 2, "model__windows": (3, 0)},
    "encoder_decoder": {
        "model__layers": 1,
        "model__architecture": "encoder_decoder",
        "model__positions": "relative",
        "model__encoder_layers": 1,
        "model__tied": False,
    },
}


class Letters(NamedTuple):
    """A tokenizer of one letter an id, A being 0."""

    ends: frozenset[int]
    specials: Specials = Specials(VOCABULARY, end=0, start=1)

    def encode(self, text):
        return np.array([ord(letter) - 65 for letter in text if letter >= "A"], np.int32)

    def decode(self, ids, after=()):
        return "".join(chr(65 + index) for index in ids)


class Known(NamedTuple):
    """A model of five ids, ready. logs: number of a prompt, tokens behind it → the next one's log-probabilities, of the
    full model without a cache.
    """

    ready: Ready
    logs: Callable


@pytest.fixture(scope="module")
def known(tiny, random_params):
    """Return a function: form, ends → Known."""
    tables = {}

    def make(form, ends=(0,)):
        if form not in tables:
            section = ml_collections.ConfigDict(tiny(**FORMS[form]).model)
            section.vocabulary = VOCABULARY
            model = Transformer(ml_collections.FrozenConfigDict(section))
            params = random_params(model, seed=1)
            tables[form] = model, prepare.ready(model.config, params), [_table(model, params, ids) for ids in PROMPTS]
        model, params, prompts = tables[form]
        logs = lambda prompt, text: prompts[prompt][text + (0,) * (NEW - 1 - len(text))][len(text)]
        return Known(Ready(model, params, Letters(frozenset(ends)), False), logs)

    return make


def _table(model, params, prompt):
    """Return the log-probabilities before and behind each token of all texts of NEW - 1 tokens, float64 `(NEW, V)`."""
    texts = np.array(list(itertools.product(range(VOCABULARY), repeat=NEW - 1)), np.int32)
    head, encoder = np.tile(np.array(prompt, np.int32), (len(texts), 1)), None
    places = lambda ids: np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    if model.config.architecture == "encoder_decoder":
        encoder, head = Tokens(head, places(head), np.ones_like(head)), np.ones((len(texts), 1), np.int32)
    ids = np.concatenate([head, texts], axis=1)
    ones = np.ones(ids.shape, np.int32)
    run = lambda ids, encoder: model.apply({"params": params}, ids, places(ids), ones, encoder=encoder)
    out = jax.jit(run)(ids, encoder)
    logits = np.asarray(out.hidden @ out.unembed, np.float64)[:, head.shape[1] - 1 :, :VOCABULARY]
    return dict(zip(map(tuple, texts.tolist()), logits - np.log(np.exp(logits).sum(-1, keepdims=True)), strict=True))


def _all_texts(logs, ends, penalty):
    """Return (score, text) of every text there is, best first."""
    found = []
    for length in range(1, FEW + 1):
        for text in itertools.product(range(VOCABULARY), repeat=length):
            if not set(text[:-1]) & set(ends) and (text[-1] in ends or length == FEW):
                total = sum(logs(text[:place])[token] for place, token in enumerate(text))
                found.append((total / length**penalty, text))
    return sorted(found, reverse=True)


def _searched(logs, is_end, beams, penalty=1.0, early_stopping="likely"):
    """Return (score, text) of what a beam search finds, best first, written out over lists."""
    live, ended = [(0.0, ())], []
    for length in range(1, NEW + 1):
        ways = [(total + logs(text)[token], (*text, token)) for total, text in live for token in range(VOCABULARY)]
        ways = sorted((way for way in ways if way[0] > -np.inf), reverse=True)
        new = [(total / length**penalty, text) for total, text in ways[:beams] if length == NEW or is_end(text)]
        ended = sorted(ended + new, reverse=True)[:beams]
        live = [way for way in ways if not is_end(way[1])][:beams]
        far = NEW if early_stopping == "never" and penalty > 0 else length
        is_full = len(ended) == beams
        if not live or (is_full and (early_stopping == "first" or live[0][0] / far**penalty <= ended[-1][0])):
            break
    return ended


def _search(known, section, prompts=PROMPTS, see=lambda index, tokens: False):
    return beam.search(known.ready, prompts, section, see)


def _assert_same(written, expected):
    """Hold texts and scores equal to (score, text), best first."""
    assert [tuple(one.tokens) for one in written] == [text for _, text in expected]
    np.testing.assert_allclose([one.numbers["score"] for one in written], [score for score, _ in expected], rtol=1e-4)


WIDE = VOCABULARY ** (FEW - 1)  # beams that leave nothing out before the last step


@pytest.mark.parametrize(("form", "ends"), [("decoder", (0,)), ("encoder_decoder", ()), ("windows", (0, 3))])
def test_a_wide_search_finds_the_best_of_all_texts(known, sampling, form, ends):
    """Prompts of different lengths in one batch."""
    model, best = known(form, ends), 7
    for penalty in (1.0, 0.0, -0.5, 2.0):
        section = sampling(
            max_new_tokens=FEW, beams=WIDE, sequences=best, length_penalty=penalty, early_stopping="never"
        )
        written = _search(model, section)
        for number in range(len(PROMPTS)):
            logs = lambda text, number=number: model.logs(number, text)
            here = written[number * best : (number + 1) * best]
            _assert_same(here, _all_texts(logs, ends, penalty)[:best])
            for one in here:
                expected = [logs(tuple(one.tokens[:place]))[token] for place, token in enumerate(one.tokens)]
                np.testing.assert_allclose(one.logprobs, expected, atol=1e-5)
                assert one.finish_reason == ("stop" if one.tokens[-1] in ends else "length")


@pytest.mark.parametrize(("form", "ends"), [("decoder", (0,)), ("encoder_decoder", (0, 3))])
def test_a_narrow_search_is_as_written_out(known, sampling, form, ends):
    """Ways to end early and powers of the length; many change what is found."""
    model, beams, different = known(form, ends), 3, set()
    for penalty, early_stopping in itertools.product((1.0, 0.0, -2.0, 3.0), ("first", "likely", "never")):
        section = sampling(
            max_new_tokens=NEW, beams=beams, sequences=beams, length_penalty=penalty, early_stopping=early_stopping
        )
        written = _search(model, section)
        for number in range(len(PROMPTS)):
            logs = lambda text, number=number: model.logs(number, text)
            expected = _searched(logs, lambda text: text[-1] in ends, beams, penalty, early_stopping)
            _assert_same(written[number * beams : (number + 1) * beams], expected)
        different.add(tuple(tuple(one.tokens) for one in written))
    assert len(different) > 3


def test_ends_wait_for_enough_tokens_and_bans_hold(known, sampling):
    model = known("decoder")
    fields = {"min_new_tokens": 3, "logit_bias": ("E=-2.5",), "banned": ("B",)}
    written = _search(model, sampling(max_new_tokens=NEW, beams=3, sequences=3, **fields))
    for number in range(len(PROMPTS)):

        def logs(text, number=number):
            return model.logs(number, text) + np.array([-np.inf if len(text) < 3 else 0, -np.inf, 0, 0, -2.5])

        here = written[number * 3 : (number + 1) * 3]
        _assert_same(here, _searched(logs, lambda text: text[-1] == 0, 3))
        for one in here:
            expected = [model.logs(number, tuple(one.tokens[:place]))[token] for place, token in enumerate(one.tokens)]
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-5)


def test_a_stop_string_ends_a_beam(known, sampling):
    """One of two tokens; whole texts are seen, each once."""
    model, seen = known("decoder"), []
    section = sampling(max_new_tokens=NEW, beams=3, sequences=3, stop=("EE", "CB"))
    spelled = lambda text: "".join(chr(65 + index) for index in text)
    has_stop = lambda text: "EE" in spelled(text) or "CB" in spelled(text)
    see = lambda index, tokens: seen.append((index, tokens)) or has_stop(tokens)
    written = _search(model, section, see=see)
    for number in range(len(PROMPTS)):
        logs = lambda text, number=number: model.logs(number, text)
        expected = _searched(logs, lambda text: text[-1] == 0 or has_stop(text), 3)
        _assert_same(written[number * 3 : (number + 1) * 3], expected)
    assert seen == [(index, one.tokens) for index, one in enumerate(written)]
    for one in written:
        reason = "stop" if one.tokens[-1] == 0 else "stop_string" if has_stop(one.tokens) else "length"
        assert one.finish_reason == reason
    assert {spelled(one.tokens)[-1] for one in written if one.finish_reason == "stop_string"} == {"B", "E"}


def test_one_beam_is_greedy(known, sampling):
    model, section = known("decoder"), sampling(max_new_tokens=NEW)
    greedy = sample(model.ready, PROMPTS, section, lambda index, tokens: False)
    for one, other in zip(_search(model, section), greedy, strict=True):
        assert one.tokens == other.tokens and one.finish_reason == other.finish_reason
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_a_text_ends_at_the_context(known, sampling):
    """Of 13: the prompts leave room for 3, 6 and 12 tokens."""
    model, prompts = known("decoder", ()), [[1, 2, 3, 4, 1] * 2, [2, 3, 1, 4, 4, 4, 3], [1]]
    search = lambda count: _search(model, sampling(max_new_tokens=count, beams=3, sequences=2), prompts)
    together = search(20)
    assert [len(one.tokens) for one in together] == [3, 3, 6, 6, 12, 12]
    assert {one.finish_reason for one in together} == {"length"}
    for number, room in enumerate((3, 6)):
        mine = slice(2 * number, 2 * number + 2)
        _assert_same(together[mine], [(one.numbers["score"], tuple(one.tokens)) for one in search(room)[mine]])


def test_where_fewer_texts_are_possible_the_last_stands_for_others(known, sampling):
    model = known("decoder")
    written = _search(model, sampling(max_new_tokens=1, beams=WIDE, sequences=7))
    for number in range(len(PROMPTS)):
        order = [int(token) for token in np.argsort(-model.logs(number, ()))]
        assert [one.tokens for one in written[7 * number :][:7]] == [[token] for token in [*order, *order[-1:] * 2]]


def test_two_programs_serve_all_settings_of_as_many_beams(byte_bundle, sampling):
    """What temperature and cuts say does not count."""
    bundle, compiled = byte_bundle(model__family="llama", model__layers=1), []

    def count(event, seconds, **words):
        if "backend_compile" in event and words.get("fun_name") in ("jit(begin)", "jit(advance)", "jit(prefill)"):
            compiled.append(words["fun_name"])

    settings = (
        {"length_penalty": 2.0, "early_stopping": "never", "min_new_tokens": 3},
        {"repetition_penalty": 1.5, "early_stopping": "first", "stop": ("x",)},
        {"temperature": 0.8, "top_k": 3, "min_p": 0.5, "seed": 7},
        {},
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        found = [generate(bundle, ["Hey"], sampling(beams=3, sequences=3, **fields)) for fields in settings]
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert sorted(compiled) == ["jit(advance)", "jit(begin)"]
    assert [one.tokens for one in found[-2]] == [one.tokens for one in found[-1]]


def test_completions_are_shown_and_lie_best_first(byte_bundle, sampling):
    bundle, shown = byte_bundle(model__family="llama", model__layers=1), [""] * 4

    def watch(index, text):
        shown[index] += text

    completions = generate(bundle, ["Hello", "a"], sampling(beams=4, sequences=2), watch)
    assert shown == [one.text for one in completions] and all(shown)
    for best, other in (completions[:2], completions[2:]):
        assert best.numbers["score"] > other.numbers["score"]
        assert best.numbers["score"] == pytest.approx(np.mean(best.logprobs), abs=1e-5)
