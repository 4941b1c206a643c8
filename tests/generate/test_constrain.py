"""Texts of models without sense that yet match a regular expression, or obey a JSON schema."""

import json
import re
import sys

import jax
import numpy as np
import pytest

from lm.generate import constrain, decode, samplers
from lm.generate.generator import Generator
from lm.generate.method import padded
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.weights.bundle import Bundle

TEXT = 'the cat sat on the mat 2026-11-22 {"name": "cat", "age": 12, "tags": ["a", "b"], "is": true} ab abc'
PROMPTS = ["Hello", "", "a nine"]
DATE = "[12][0-9]{3}-(0[1-9]|1[0-2])-[0-9]{2}"


@pytest.fixture(scope="module")
def writer(tiny, random_params):
    """Return a function: tokenizer, config overrides → a Generator with a random model."""
    made = {}

    def make(kind, **overrides):
        key = kind, *overrides.items()
        if key not in made:
            tokenizer = learn(tiny(data__tokenizer=kind).data, [TEXT, DATE])
            sizes = {"model__vocabulary": 331, "model__layers": 1, "model__context": 64}  # one program for all kinds
            config = tiny(**sizes | overrides)
            model = Transformer(config.model)
            made[key] = Generator(Bundle(config, model, random_params(model), tokenizer))
        return made[key]

    return make


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:301", "wordpiece:301"])
@pytest.mark.parametrize("pattern", [f" ?{DATE}", "( ?[a-c]{2,3}){1,3}", "|a| the cat", r" ?(\d+|true)\W?", "[^é]{3}t"])
def test_a_complete_text_matches(writer, sampling, kind, pattern):
    """Likeliest and drawn, of ragged prompts."""
    write = writer(kind)
    for fields in ({}, {"temperature": 3.0, "top_p": 0.9, "repetition_penalty": 1.3}):
        section = sampling(regex=pattern, max_new_tokens=40, **fields)
        for completion in write(PROMPTS, section):
            assert set(completion.numbers) == {"complete"}
            assert completion.numbers["complete"] == bool(re.fullmatch(pattern, completion.text)), completion
            assert np.isfinite(completion.logprobs).all()
            if completion.numbers["complete"]:
                assert completion.finish_reason in ("stop", "length")
            elif kind != "wordpiece:301":  # which has no piece for every letter within a word
                assert completion.finish_reason == "length" and len(completion.tokens) == 40


def test_several_texts_of_a_prompt_become_complete(writer, sampling):
    for kind in ("byte", "bpe:301"):
        found = writer(kind)(["a"], sampling(regex=DATE, temperature=1.0, sequences=3, max_new_tokens=40))
        assert all(one.numbers["complete"] and one.finish_reason == "stop" for one in found)
        assert all(one.tokens[-1] in writer(kind).ready.tokenizer.ends for one in found)
        assert len({one.text for one in found}) == 3


SCHEMA = {
    "x-guidance": {"whitespace_pattern": "[ ]{1,5}"},
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
        "next": {"$ref": "#/$defs/node"},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
    "$defs": {"node": {"type": "object", "properties": {"is": {"type": "boolean"}}, "additionalProperties": False}},
}


def check(value):
    """Assert that a value obeys SCHEMA."""
    assert {"name", "age", "tags"} <= set(value) <= {"name", "age", "tags", "next"}
    assert isinstance(value["name"], str) and len(value["name"]) <= 5
    assert type(value["age"]) is int and 3 <= value["age"] <= 120
    assert len(value["tags"]) <= 3 and all(tag in ("a", "b", None) for tag in value["tags"])
    node = value.get("next", {})
    assert set(node) <= {"is"} and all(type(one) is bool for one in node.values())


@pytest.mark.parametrize("kind", ["byte", "bpe:301"])
def test_json_obeys_its_schema(writer, sampling, kind, tmp_path):
    """Given as text, and as a file."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    fields = {"temperature": 1.0, "max_new_tokens": 200}
    found = writer(kind)(PROMPTS, sampling(json_schema=json.dumps(SCHEMA), **fields))
    again = writer(kind)(PROMPTS, sampling(json_schema=str(path), **fields))
    assert [one.tokens for one in found] == [one.tokens for one in again]
    complete = [one for one in found if one.numbers["complete"]]
    assert complete
    for one in complete:
        check(json.loads(one.text))
    assert all(one.finish_reason == "length" for one in found if one not in complete)


def test_allowed_tokens_have_their_share_of_the_probability(writer, sampling):
    """Of every token whose bytes begin a match, spelled out; also where the model holds it for all but impossible."""
    write = writer("bpe:301")
    tokenizer, section = write.ready.tokenizer, sampling(regex="(abc|the) ?cat", temperature=1.7)
    texts = ["abccat", "abc cat", "thecat", "the cat"]
    ids, lengths = padded([tokenizer.encode("Hello").tolist()] * 4000, 16)
    reading = decode.prefill(write.ready.model, write.ready.params, ids[:1], lengths[:1], slots=16)
    size = reading.logits.shape[1]
    guide = constrain._Guide(write.ready, [[5]], section)
    is_allowed = np.array([_begins(tokenizer, index, texts) for index in range(size)])
    assert 3 < is_allowed.sum() < 9
    logits = np.asarray(reading.logits)[0].astype(np.float64)
    for bias in (0, -1e30):
        given = np.where(is_allowed, np.maximum(logits + bias, -1e30 + logits), logits)
        settings = samplers.settings(section, tokenizer)
        rows = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), 4000, axis=0), reading.text)
        many = reading._replace(logits=np.tile(given.astype(np.float32), (4000, 1)), text=rows, cache=())
        keys = jax.random.split(jax.random.key(3), 4000)
        drawn = np.asarray(constrain._drawn(many, keys, settings, np.repeat(guide._allowed, 4000, axis=0)))
        wanted = np.where(is_allowed, np.exp((logits - logits[is_allowed].max()) / 1.7), 0)
        wanted = wanted / wanted.sum() if not bias else is_allowed / is_allowed.sum()
        counts = np.bincount(drawn, minlength=size)
        assert counts[~is_allowed].sum() == 0
        squares = (counts - 4000 * wanted)[is_allowed] ** 2 / (4000 * wanted)[is_allowed]
        assert squares.sum() < 30, squares  # chi-square with at most 8 degrees of freedom: 30 is once in 5000


def _begins(tokenizer, index, texts):
    text = tokenizer.spelled(index)
    if text is None or index in tokenizer.ends:
        return False
    return any(one.startswith(text.replace("Ġ", " ")) for one in texts)


def test_log_probabilities_are_the_models_own(writer, sampling):
    write = writer("byte")
    section = sampling(regex="[ab]{3}", max_new_tokens=40)
    one, *_ = write(PROMPTS, section)
    assert len(one.tokens) == 4
    ids = [*write.ready.tokenizer.encode("Hello"), *one.tokens]
    reading = lambda n: decode.prefill(write.ready.model, write.ready.params, *padded([ids[:n]], 16), slots=16)
    wanted = [float(jax.nn.log_softmax(reading(5 + n).logits[0])[one.tokens[n]]) for n in range(4)]
    np.testing.assert_allclose(one.logprobs, wanted, atol=1e-4)


def test_an_end_comes_where_the_pattern_is_complete_and_only_there(writer, sampling):
    """Whatever the model likes: a text that spells the end's token does not end."""
    write = writer("bpe:301")
    end = write.ready.tokenizer.token(write.ready.tokenizer.end)
    for one in write(PROMPTS, sampling(regex=f"a{re.escape(end)}b", max_new_tokens=40)):
        assert one.text == f"a{end}b" and one.finish_reason == "stop"
        assert sum(token in write.ready.tokenizer.ends for token in one.tokens) == 1


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ({"regex": "ab|abc", "min_new_tokens": 3}, ("abc", "stop", 1.0)),
        ({"regex": "ab", "min_new_tokens": 9}, ("ab", "stop", 1.0)),
        ({"regex": "ab", "banned": ("b",)}, ("a", "stop", 0.0)),
        ({"regex": "abc+", "stop": ("c",)}, ("ab", "stop_string", 0.0)),
        ({"regex": "a{50}"}, ("a" * 40, "length", 0.0)),
        ({"regex": "a{40}b?"}, ("a" * 40, "length", 1.0)),
    ],
)
def test_what_else_ends_a_text(writer, sampling, fields, wanted):
    """What the pattern wants is no way around a ban, but where the pattern ends, a text may be short."""
    for one in writer("byte")(PROMPTS, sampling(max_new_tokens=40, **fields)):
        assert (one.text, one.finish_reason, one.numbers["complete"]) == wanted


def test_a_decoder_with_an_encoder_answers_in_the_pattern(writer, sampling):
    write = writer("byte", model__architecture="encoder_decoder", model__family="t5")
    for one in write(PROMPTS, sampling(regex="[ab]{3}(cd)?", temperature=1.0, sequences=2)):
        assert re.fullmatch("[ab]{3}(cd)?", one.text) and one.numbers["complete"]


def test_where_a_text_begins_its_space_is_lost_and_the_pattern_knows(writer, sampling):
    """Word pieces write a space before a word, but not before the first."""
    write = writer("wordpiece:301")
    alone, behind, _ = write(["", "the", "a"], sampling(regex=" ?(cat|mat) ?sat", temperature=1.0, max_new_tokens=40))
    assert re.fullmatch("(cat|mat) ?sat", alone.text) and re.fullmatch(" ?(cat|mat) ?sat", behind.text)


def test_one_program_serves_every_pattern(writer, sampling):
    write = writer("byte")
    write(PROMPTS, sampling(regex="[ab]{3}", max_new_tokens=40))
    drawn, added = constrain._drawn._cache_size(), constrain._append._cache_size()
    write(PROMPTS, sampling(regex=r"\d{5}", temperature=0.3, top_k=3, max_new_tokens=40))
    write(PROMPTS, sampling(json_schema='{"type": "integer"}', repetition_penalty=2.0, max_new_tokens=40))
    assert (constrain._drawn._cache_size(), constrain._append._cache_size()) == (drawn, added)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"regex": "é"}, "no token that begins what matches"),
        ({"json_schema": "nothing.json"}, "neither a JSON object nor a file: 'nothing.json' .No such file"),
        ({"json_schema": "{"}, "is no JSON "),
        ({"json_schema": "LIST"}, "is no JSON object"),
        ({"json_schema": "BYTES"}, "it is no UTF-8"),
        ({"json_schema": '{"not": {"type": "string"}}'}, 'cannot follow it .Unimplemented keys: ."not"'),
        ({"json_schema": '{"type": "nonsense"}'}, "cannot follow it .Invalid type: nonsense"),
        ({"json_schema": '{"pattern": "(?=a)"}'}, "cannot follow it .*look-around"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(writer, sampling, fields, reason, tmp_path):
    (tmp_path / "list").write_text("[1]")
    (tmp_path / "bytes").write_bytes(b"\xff")
    places = {"LIST": str(tmp_path / "list"), "BYTES": str(tmp_path / "bytes")}
    ((name, value),) = fields.items()
    with pytest.raises(Refusal, match=reason):
        fields = {name: places.get(value, value)}
        writer("char")(PROMPTS, sampling(**fields))


def test_without_llguidance_the_sentence_says_how_to_install_it(writer, sampling, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Refusal, match=r"pip install 'lm\[constrain\]'"):
        writer("byte")([""], sampling(regex="a"))
