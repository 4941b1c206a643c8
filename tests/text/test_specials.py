"""Tokens with a meaning of their own: asked for, found in a file, kept, and never made of text."""

import json
import re

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from lm.config import defaults
from lm.config.resolve import resolve
from lm.refusal import Refusal
from lm.text import learn
from lm.text.tokenizer import END, load

TEXTS = [f"the fox number {number} jumps [MASK] <extra_id_0> {number * 7919}\n" for number in range(97)]
KINDS = ("byte", "char", "bpe:311", "unigram:311", "wordpiece:311")


def section(kind, mask="", sentinels=0, **fields):
    config = defaults("data")
    with config.unlocked():
        config.update({"tokenizer": kind, "mask_token": mask, "sentinels": sentinels} | fields)
    return config


@pytest.fixture
def of_file(tmp_path):
    """Return a function: special tokens in the order of their ids, behind a few words → data.tokenizer."""

    def make(*special):
        inner = tokenizers.Tokenizer(models.WordLevel({"the": 0, "fox": 1, "?": 2}, unk_token="?"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        inner.add_special_tokens(list(special))
        inner.save(str(tmp_path / "tokenizer.json"))
        return f"file:{tmp_path}/tokenizer.json"

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_stands_behind_the_tokens_of_text(kind, tmp_path):
    plain, asked = (learn.learn(section(kind, *some), TEXTS) for some in ((), ("[MASK]", 7)))
    assert plain.specials.mask is None and plain.specials.sentinels == ()
    found = asked.specials
    assert (found.mask, found.sentinels) == (plain.size, tuple(range(plain.size + 1, plain.size + 8)))
    assert asked.size == found.size == plain.size + 8
    for text in [*TEXTS[:3], END]:
        ids = asked.encode(text)
        np.testing.assert_array_equal(ids, plain.encode(text))  # which spells them, and does not get them
        assert {asked.token(index) for index in set(ids.tolist()) & set(found.unwritten)} <= {"[UNK]"}
    assert {found.mask, found.end, *found.sentinels} <= set(found.unwritten)
    assert set(found.unwritten) - set(plain.specials.unwritten) == {found.mask, *found.sentinels}
    assert asked.token(found.mask) == "[MASK]" and asked.token(found.sentinels[3]) == "<extra_id_3>"
    asked.save(tmp_path / "tokenizer")
    assert load(tmp_path / "tokenizer").specials == found


def test_the_mask_may_be_spelled_otherwise_and_is_kept(tmp_path):
    learned = learn.learn(section("bpe:311", "<hidden>"), TEXTS)
    assert learned.specials.mask == 311 and learned.token(311) == "<hidden>"
    learned.save(tmp_path)
    assert load(tmp_path).specials.mask == 311
    (tmp_path / "kind.txt").write_text(f"bpe:311\n{END}\n")  # as it was written before there were masks
    assert load(tmp_path).specials.mask is None


def test_a_file_has_its_own_by_name(of_file):
    """As T5's, whose first sentinel has the last id; as BERT's and RoBERTa's."""
    t5 = learn.learn(section(of_file("<pad>", "</s>", "<extra_id_2>", "<extra_id_1>", "<extra_id_0>")), []).specials
    assert (t5.start, t5.end, t5.sentinels, t5.mask) == (3, 4, (7, 6, 5), None)
    bert = learn.learn(section(of_file("[PAD]", "[CLS]", "[SEP]", "[MASK]")), []).specials
    assert (bert.mask, bert.first, bert.start, bert.sentinels) == (6, 4, 5, ())
    roberta = learn.learn(section(of_file("<s>", "<pad>", "</s>", "<mask>", "<extra_id_1>")), []).specials
    assert (roberta.mask, roberta.first, roberta.sentinels) == (6, 3, ())  # without the first there are none
    assert roberta.unwritten == (3, 4, 5, 6, 7)


def test_ids_of_no_token_are_in_no_text(tmp_path):
    inner = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 5, "?": 4}, unk_token="?"))
    inner.add_special_tokens(["</s>"])
    inner.save(str(tmp_path / "t.json"))
    found = learn.learn(section(f"file:{tmp_path}/t.json"), []).specials
    assert set(range(found.size)) - set(found.unwritten) == {0, 4, 5}


@pytest.mark.parametrize(
    ("kind", "mask", "sentinels", "sentence"),
    [
        ("file", "[MASK]", 0, "data.mask_token is '[MASK]': it must be a special token"),
        ("file", "fox", 0, "data.mask_token is 'fox'"),
        ("file", "", 3, "data.sentinels is 3: data.tokenizer 'file:"),
        ("byte", END, 0, "that is the end-of-text token"),
        ("char", "f", 0, "makes a special token of the text 'f'"),
    ],
)
def test_what_a_tokenizer_cannot_have_is_refused(of_file, kind, mask, sentinels, sentence):
    kind = of_file("</s>", "<extra_id_0>", "<extra_id_1>") if kind == "file" else kind
    with pytest.raises(Refusal, match=re.escape(sentence)):
        learn.learn(section(kind, mask, sentinels), TEXTS)


def test_a_store_without_them_keeps_its_key():
    assert learn.key(section("bpe:311")) == json.dumps(["bpe:311", "none", "", ""])
    keys = [learn.key(section("bpe:311", *some)) for some in ((), ("[MASK]",), ("", 3), ("[MASK]", 3), ("<mask>", 3))]
    assert len(set(keys)) == 5


@pytest.mark.parametrize(
    ("given", "mask", "sentinels"),
    [
        ({}, "", 0),
        ({"objective.name": "masked", "model.architecture": "encoder"}, "[MASK]", 0),
        ({"objective.name": "span"}, "", 100),
        ({"objective.name": "mixture", "data.sentinels": 7}, "", 7),
        ({"objective.name": "masked", "model.architecture": "encoder", "data.mask_token": "<m>"}, "<m>", 0),
        ({"objective.name": "masked", "model.architecture": "encoder", "data.tokenizer": "file:a.json"}, "", 0),
        ({"objective.name": "span", "data.tokenizer": "sentencepiece:a.model"}, "", 0),
    ],
)
def test_an_objective_asks_for_what_it_needs(given, mask, sentinels):
    config = defaults()
    config.update_from_flattened_dict({"train.steps": 1} | given)
    resolved = resolve(config)
    assert (resolved.data.mask_token, resolved.data.sentinels) == (mask, sentinels)
    assert resolve(resolved) == resolved
