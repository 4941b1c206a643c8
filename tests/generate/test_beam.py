"""Searches against all texts there are, against a search written out over lists, and against greedy."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest

from lm.generate import beam, prepare
from lm.generate.method import Ready
from lm.model.transformer import Tokens, Transformer
from lm.text.tokenizer import Specials

VOCABULARY, NEW = 5, 4
PROMPTS = [[1, 4, 2], [3], [2, 2, 1, 4, 3, 1]]
FORMS = {
    "decoder": {"model__family": "llama"},
    "windows": {"model__family": "gemma3"},
    "encoder_decoder": {
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
            section = ml_collections.ConfigDict(tiny(model__layers=2, **FORMS[form]).model)
            section.vocabulary = VOCABULARY
            model = Transformer(ml_collections.FrozenConfigDict(section))
            params = random_params(model)
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
    for length in range(1, NEW + 1):
        for text in itertools.product(range(VOCABULARY), repeat=length):
            if not set(text[:-1]) & set(ends) and (text[-1] in ends or length == NEW):
                total = sum(logs(text[:place])[token] for place, token in enumerate(text))
                found.append((total / length**penalty, text))
    return sorted(found, reverse=True)


def _searched(logs, is_end, beams, penalty, early_stopping):
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


WIDE = VOCABULARY ** (NEW - 1)  # beams that leave nothing out before the last step


@pytest.mark.parametrize(("form", "ends"), [("decoder", (0,)), ("encoder_decoder", ()), ("windows", (0, 3))])
def test_a_wide_search_finds_the_best_of_all_texts(known, sampling, form, ends):
    """Prompts of different lengths in one batch."""
    model, best = known(form, ends), 7
    for penalty in (1.0, 0.0, -0.5, 2.0):
        section = sampling(
            max_new_tokens=NEW, beams=WIDE, sequences=best, length_penalty=penalty, early_stopping="never"
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


@pytest.mark.parametrize(("form", "ends"), [("decoder", (0,)), ("decoder", (0, 3)), ("encoder_decoder", (0, 3))])
def test_a_narrow_search_is_as_written_out(known, sampling, form, ends):
    """Which every way to end early, and every power of the length, changes."""
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
    assert len(different) > 5
