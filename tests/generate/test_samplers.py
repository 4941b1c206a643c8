"""Samplers against NumPy and Transformers, and draws against the probabilities that they should have."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tokenizers
from scipy import stats

from lm.config import defaults
from lm.generate import samplers
from lm.generate.generator import generate
from lm.generate.samplers import Settings, Text
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.text.tokenizer import Tokenizer

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "samplers.npz"))
CASES = json.loads(str(GOLDEN["cases"]))
LOGITS, ENDS = GOLDEN["logits"], GOLDEN["ends"].tolist()
TEXT = Text(GOLDEN["ids"], GOLDEN["begun"], GOLDEN["lengths"])
ROWS = [ids[:length].tolist() for ids, length in zip(TEXT.ids, TEXT.lengths, strict=True)]

adjusted, warped, draw = jax.jit(samplers.adjusted), jax.jit(samplers.warped), jax.jit(samplers.draw)
log_probabilities = jax.jit(samplers.log_probabilities)


@pytest.fixture(scope="module")
def made(numbers):
    """Return a function: fields of the section, 1.0 being the temperature → Settings for the ids as words."""

    def make(**fields):
        section = defaults("sample")
        section.update({"temperature": 1.0} | {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        return samplers.settings(ml_collections.FrozenConfigDict(section), numbers)

    return make


# ---- Each method, written out for a row: logits (V,), float64, and the ids before in; logits out.


def _probabilities(logits):
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


def _biased(logits, ids, phrase, bias):
    *others, last = phrase
    if ids[len(ids) - len(others) :] == others:
        logits[last] += bias
    return logits


def _less_repeated(logits, ids, penalty):
    for token in set(ids):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    return logits


def _less_frequent(logits, added, frequency, presence):
    for token in added:
        logits[token] -= frequency
    for token in set(added):
        logits[token] -= presence
    return logits


def _without_ngrams(logits, ids, size):
    there = {tuple(ids[place : place + size]) for place in range(len(ids) - size + 1)}
    for token in range(len(logits)):
        if size and (*ids[len(ids) - size + 1 :], token)[-size:] in there and len(ids) >= size - 1:
            logits[token] = -np.inf
    return logits


def _top_k(logits, count):
    kept = np.argsort(-logits)[: count or len(logits)]
    return np.where(np.isin(np.arange(len(logits)), kept), logits, -np.inf)


def _top_p(logits, share):
    out, held = np.full_like(logits, -np.inf), 0.0
    for token in np.argsort(-logits):
        out[token] = logits[token]
        held += _probabilities(logits)[token]
        if held >= share:
            break
    return out if share < 1 else logits


def _min_p(logits, share):
    probabilities = _probabilities(logits)
    return np.where(probabilities >= share * probabilities.max(), logits, -np.inf)


def _expected(fields, row):
    """Return a row's logits as greedy search sees them, and the logs of a draw's probabilities."""
    value = lambda name: fields.get(name, defaults("sample")[name])
    words = lambda text: [int(word) for word in text.split()]
    logits, ids, begun = np.float64(LOGITS[row]), ROWS[row], int(TEXT.begun[row])
    for text in value("logit_bias"):
        logits = _biased(logits, ids, words(text.split("=")[0]), float(text.split("=")[1]))
    logits = _less_repeated(logits, ids, value("repetition_penalty"))
    logits = _less_frequent(logits, ids[begun:], value("frequency_penalty"), value("presence_penalty"))
    logits = _without_ngrams(logits, ids, value("no_repeat_ngram"))
    for text in value("banned"):
        logits = _biased(logits, ids, words(text), -np.inf)
    if len(ids) - begun < value("min_new_tokens"):
        logits[ENDS] = -np.inf
    cut = _top_k(logits / fields.get("temperature", 1.0), value("top_k"))
    cut = _min_p(_top_p(cut, value("top_p")), value("min_p"))
    with np.errstate(divide="ignore"):
        return logits, np.log(_probabilities(cut))


OWN = [
    *({"frequency_penalty": value} for value in (0.7, -1.5)),
    *({"presence_penalty": value} for value in (0.9, -2.0)),
    {"frequency_penalty": 0.6, "presence_penalty": 1.1, "repetition_penalty": 1.2, "logit_bias": ["3=2", "1 4=-3"]},
    {"no_repeat_ngram": 2, "frequency_penalty": 2.0, "top_k": 6, "top_p": 0.9, "min_p": 0.1, "banned": ["5", "2 3"]},
]


@pytest.mark.parametrize("fields", CASES + OWN, ids=lambda fields: " ".join(fields) or "none")
def test_logits_are_as_written_out(made, fields):
    settings = made(**fields)
    expected = [_expected(fields, row) for row in range(len(ROWS))]
    ours = adjusted(LOGITS, TEXT, settings)
    np.testing.assert_allclose(ours, [logits for logits, _ in expected], rtol=1e-5, atol=1e-5)
    logs = log_probabilities(LOGITS, TEXT, settings)
    np.testing.assert_allclose(logs, [logs for _, logs in expected], rtol=1e-5, atol=1e-5)
    if fields not in ({}, {"top_k": 50}, {"no_repeat_ngram": 40}):
        assert np.abs(np.exp(logs) - np.exp(log_probabilities(LOGITS, TEXT, made()))).max() > 1e-3


def test_any_combination_is_as_written_out(made):
    """120 of them, each field on every other time."""
    generator = np.random.default_rng(5)
    choices = {
        "temperature": (0.3, 0.8, 1.7),
        "top_k": (2, 5, 9),
        "top_p": (0.3, 0.7, 0.93),
        "min_p": (0.02, 0.2),
        "repetition_penalty": (0.8, 1.2, 3.0),
        "frequency_penalty": (-0.7, 0.4),
        "presence_penalty": (-0.5, 1.1),
        "no_repeat_ngram": (1, 2, 3),
        "min_new_tokens": (1, 3, 6),
        "logit_bias": (["3=2.5", "1 4=-3"], ["2 5 2=6", "7 7=1.5", "6=-2"]),
        "banned": (["5"], ["2 3", "1 4 2", "8 9"]),
    }
    for _ in range(120):
        fields = {n: some[generator.integers(len(some))] for n, some in choices.items() if generator.random() < 0.5}
        expected = [_expected(fields, row) for row in range(len(ROWS))]
        logs = log_probabilities(LOGITS, TEXT, made(**fields))
        np.testing.assert_allclose(logs, [one for _, one in expected], rtol=1e-4, atol=1e-5, err_msg=str(fields))
        greedy = log_probabilities(LOGITS, TEXT, made(**fields | {"temperature": 0.0}))
        np.testing.assert_array_equal(greedy.argmax(1), [one.argmax() for one, _ in expected])


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: " ".join(CASES[case]) or "none")
def test_logits_are_transformers(made, case):
    settings = made(**CASES[case])
    np.testing.assert_allclose(adjusted(LOGITS, TEXT, settings), GOLDEN["adjusted"][case], rtol=1e-5, atol=1e-5)
    ours = log_probabilities(LOGITS, TEXT, settings)
    np.testing.assert_allclose(ours, GOLDEN["drawn"][case], rtol=1e-5, atol=1e-5)


# ---- Draws.


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.7},
        {"top_k": 4},
        {"top_p": 0.8},
        {"min_p": 0.07},
        {"temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.05},
        {
            "temperature": 1.2,
            "repetition_penalty": 1.5,
            "presence_penalty": 0.5,
            "logit_bias": ["3=2"],
            "banned": ["5"],
        },
    ],
    ids=lambda fields: " ".join(fields) or "none",
)
def test_draws_have_their_probabilities(made, fields):
    """χ² of 50,000 draws; tokens too rare for it are held as one."""
    count, row = 50_000, 3
    probabilities = np.exp(_expected({"temperature": 1.0} | fields, row)[1])
    rows = lambda values: jnp.repeat(jnp.asarray(values[row])[None], count, axis=0)
    tokens = draw(jax.random.split(jax.random.key(1), count), rows(LOGITS), Text(*map(rows, TEXT)), made(**fields))
    assert tokens.dtype == jnp.int32
    counts = np.bincount(tokens, minlength=13)
    assert len(counts) == 13 and not counts[probabilities == 0].any()
    is_rare = probabilities * count < 10
    pool = lambda values: np.append(values[~is_rare], values[is_rare].sum())
    seen, expected = pool(counts), pool(probabilities * count)
    seen, expected = seen[expected > 0], expected[expected > 0]
    distance = ((seen - expected) ** 2 / expected).sum()
    assert len(seen) > 1 and distance < stats.chi2.ppf(0.999, len(seen) - 1)


def test_a_draw_is_of_its_row_alone(made):
    """In any company, and at any place, a row's key draws the same token."""
    settings, keys = made(temperature=2.0, top_p=0.9), jax.random.split(jax.random.key(2), 5)
    tokens = draw(keys, LOGITS, TEXT, settings)
    assert len(set(tokens.tolist())) > 2
    turned = draw(keys[::-1], LOGITS[::-1], Text(*(values[::-1] for values in TEXT)), settings)
    np.testing.assert_array_equal(turned[::-1], tokens)
    np.testing.assert_array_equal(draw(keys[1:2], LOGITS[1:2], Text(*(v[1:2] for v in TEXT)), settings), tokens[1:2])


def test_several_lengths_of_a_text_at_once_are_as_one_by_one(made, equations):
    """Mapped over, what is off is still skipped: each condition stays one."""
    lengths = np.stack([TEXT.lengths, np.maximum(TEXT.lengths - 2, 0)])
    settings = made(**CASES[-1] | {"frequency_penalty": 0.5})
    mapped = jax.vmap(samplers.log_probabilities, (None, Text(None, None, 0), None))
    one_by_one = [log_probabilities(LOGITS, TEXT._replace(lengths=some), settings) for some in lengths]
    text = TEXT._replace(lengths=lengths)
    np.testing.assert_allclose(jax.jit(mapped)(LOGITS, text, settings), one_by_one, rtol=1e-5, atol=1e-6)
    count = lambda program, *given: sum(one.primitive.name == "cond" for one, _ in equations(program, *given))
    assert count(mapped, LOGITS, text, settings) == count(samplers.log_probabilities, LOGITS, TEXT, settings) == 11


def test_no_temperature_takes_the_likeliest(made):
    keys = jax.random.split(jax.random.key(0), 5)
    likeliest = LOGITS.argmax(1)
    tokens = draw(keys, LOGITS, TEXT, made(temperature=0.0, top_p=0.1))
    np.testing.assert_array_equal(tokens, likeliest)
    assert tokens.dtype == jnp.int32
    np.testing.assert_array_equal(draw(keys, LOGITS, TEXT, Settings()), likeliest)
    logs = log_probabilities(LOGITS, TEXT, made(temperature=0.0))
    np.testing.assert_array_equal(logs, np.where(np.arange(13)[None] == likeliest[:, None], 0, -np.inf))
    assert not logs.weak_type


def test_ties_with_the_last_are_kept(made):
    logits = np.array([[1.0, 3.0, 1.0, -0.0, 0.0, -5.0, 1.0, -np.inf]], np.float32)
    text = Text(*(values[:1] for values in TEXT))
    kept = lambda **fields: np.flatnonzero(np.isfinite(log_probabilities(logits, text, made(**fields))[0])).tolist()
    assert kept(top_k=1) == [1]
    assert kept(top_k=2) == kept(top_k=4) == kept(top_p=0.8) == [0, 1, 2, 6]
    assert kept(top_k=5) == [0, 1, 2, 3, 4, 6]
    assert kept(top_k=7) == kept(top_k=8) == kept() == [0, 1, 2, 3, 4, 5, 6]


# ---- What no settings do: not a number, or nothing left.

HARD = np.float32(
    [
        np.linspace(-2, 2, 13),
        np.linspace(-3e38, 3e38, 13),
        [0.0, *[-np.inf] * 12],
        [*[-np.inf] * 5, 3e38, -3e38, np.inf, 1e-42, -0.0, 0.0, 5.0, -np.inf],
        [1e30] * 13,
    ]
)
EXTREMES = [
    *({"temperature": value} for value in (1e-300, 1e-45, 1e-30, 1e30, 1e300)),
    *({"top_k": value} for value in (1, 14, 2**52)),
    *({"top_p": value} for value in (1e-300, 1e-45, 1e-7, 1 - 1e-9)),
    *({"min_p": value} for value in (1e-300, 1e-45, 1.0)),
    *({"repetition_penalty": value} for value in (1e-300, 1e-45, 1e-30, 1e30, 1e300)),
    *({"frequency_penalty": value, "presence_penalty": value} for value in (-100.0, 1e-45, 100.0)),
    {"no_repeat_ngram": 2**52},
    {"min_new_tokens": 2**52},
    {"logit_bias": ["1=1000", "3=-1000", "4 3=1000", "0=-1000"]},
    {"logit_bias": [f"{index}=-1000" for index in range(13)], "temperature": 1e-30},
    {"repetition_penalty": 1e300, "temperature": 1e-30, "top_p": 1e-45, "min_p": 1.0, "top_k": 1},
    {"repetition_penalty": 1e-300, "temperature": 1e30, "top_p": 0.99, "min_p": 1e-45, "logit_bias": ["3=1000"]},
]


@pytest.mark.parametrize("fields", EXTREMES, ids=lambda fields: " ".join(fields))
def test_extremes_make_probabilities(made, fields):
    keys = jax.random.split(jax.random.key(0), 5)
    for temperature in ({"temperature": 0.0}, {"temperature": 1.0} | fields):
        settings = made(**fields | temperature)
        assert all(np.isfinite(value) for value in settings if np.ndim(value) == 0)
        logs = np.float64(log_probabilities(HARD, TEXT, settings))
        assert not np.isnan(logs).any()
        np.testing.assert_allclose(np.exp(logs).sum(1), 1, rtol=1e-5)
        tokens = draw(keys, HARD, TEXT, settings)
        assert (np.take_along_axis(logs, np.asarray(tokens)[:, None], 1) > -np.inf).all()
        assert not np.isnan(adjusted(HARD, TEXT, settings)).any()


def test_the_least_temperature_is_greedy_and_the_highest_even(made):
    logs = lambda value: np.asarray(log_probabilities(LOGITS, TEXT, made(temperature=value)))
    np.testing.assert_array_equal(np.exp(logs(1e-300)), np.exp(logs(0.0)))
    np.testing.assert_allclose(logs(1e300), -np.log(13), rtol=1e-6)


def test_where_all_is_banned_the_text_ends(made, numbers):
    """Of the ends, the likelier one; without ends the bans fall; a row that may be nothing ends too."""
    all_words = made(banned=[str(index) for index in range(13)], min_new_tokens=50, temperature=0.0)
    logits = LOGITS.copy()
    logits[:, 12], logits[:, 0] = logits[:, 0].copy(), logits[:, 12].copy()
    keys = jax.random.split(jax.random.key(0), 5)
    for given in (LOGITS, logits):
        tokens = draw(keys, given, TEXT, all_words)
        np.testing.assert_array_equal(tokens, np.where(given[:, 0] >= given[:, 12], 0, 12))
    endless = all_words._replace(ends=np.full(4, -1, np.int32))
    np.testing.assert_array_equal(draw(keys, LOGITS, TEXT, endless), LOGITS.argmax(1))
    nothing = np.full_like(LOGITS, -np.inf)
    logs = log_probabilities(nothing, TEXT, made())
    np.testing.assert_allclose(np.exp(logs), np.where(np.isin(np.arange(13), ENDS), 0.5, 0)[None].repeat(5, 0))
    outside = made()._replace(ends=np.array([99, -1, -1, -1], np.int32))
    np.testing.assert_allclose(log_probabilities(nothing, TEXT, outside), -np.log(13), rtol=1e-6)


# ---- Settings.


def test_all_settings_are_one_program(made):
    """And another where ends or phrases double."""
    traces = []

    @jax.jit
    def traced(keys, logits, text, settings):
        traces.append(1)
        return samplers.draw(keys, logits, text, settings)

    keys = jax.random.split(jax.random.key(0), 5)
    every = CASES + OWN + EXTREMES
    assert len(every) > 40
    for fields in [*every, {"temperature": 0}, {"banned": ["1 2 3 4 5 6 7 8"] * 16}]:
        traced(keys, LOGITS, TEXT, made(**fields))
    traced(keys, LOGITS, TEXT, Settings())
    assert len(traces) == 1
    traced(keys, LOGITS, TEXT, made(banned=[str(number) for number in range(13)], logit_bias=["1=1"] * 4))
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (16, 8)),
        ({"banned": ["1"]}, (16, 8)),
        ({"banned": [f"{one} {two}" for one in range(13) for two in range(13)]}, (256, 8)),
        ({"banned": ["1 " * 9]}, (16, 16)),
        ({"logit_bias": ["1 " * 33 + "=2"]}, (16, 64)),
    ],
)
def test_phrases_are_held_in_powers_of_two(made, fields, shape):
    settings = made(**fields)
    assert settings.phrases.shape == shape and settings.biases.shape == shape[:1]
    assert settings.phrases.dtype == np.int32 and settings.biases.dtype == np.float32
    assert (settings.phrases[:, -1] >= 0).sum() == len(fields.get("banned", fields.get("logit_bias", ())))


def _phrases(settings):
    """Return ids → bias, of all phrases."""
    return {
        tuple(ids[ids >= 0].tolist()): float(bias)
        for ids, bias in zip(settings.phrases, settings.biases, strict=True)
        if ids[-1] >= 0
    }


def _learned(kind, text=()):
    section = defaults("data")
    section.update({"tokenizer": kind, "sentinels": 0})
    return learn(section, text)


def test_phrases_of_bytes_and_of_a_learned_vocabulary():
    """A text to bias is encoded alone; one to ban also behind a space, if other tokens write it there."""
    section = defaults("sample")
    section.update({"logit_bias": (" the=2.5", "x==-1"), "banned": ("cat", " dog")})
    section = ml_collections.FrozenConfigDict(section)
    letters = _learned("byte")
    settings = samplers.settings(section, letters)
    texts = {" the": 2.5, "x=": -1.0, "cat": -np.inf, " dog": -np.inf}
    assert _phrases(settings) == {tuple(text.encode()): bias for text, bias in texts.items()}
    assert settings.ends.tolist() == [letters.end, -1, -1, -1]
    words = _learned("bpe:300", ["the cat and a dog, cat, dog; the concatenation of a cat and the dogs\n"] * 9)
    phrases = _phrases(samplers.settings(section, words))
    spelled = {tuple(map(words.spelled, ids)): bias for ids, bias in phrases.items()}
    texts = {("Ġthe",): 2.5, ("x", "="): -1.0, ("cat",): -np.inf, ("Ġcat",): -np.inf, ("Ġdog",): -np.inf}
    assert spelled == texts


def test_a_banned_word_goes_on_without_the_space_that_its_tokenizer_adds():
    """As SentencePiece's models: alone "cat" is " cat"; in a line's midst it is not."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁cat", -1.0), ("cat", -1.5), ("\n", -2.0)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 0))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer = Tokenizer(inner, "file:pieces.json", "</s>")
    section = defaults("sample")
    section.banned = ("cat",)
    assert set(_phrases(samplers.settings(ml_collections.FrozenConfigDict(section), tokenizer))) == {(3,), (4,)}


@pytest.mark.parametrize("name", ["logit_bias", "banned"])
def test_a_text_without_tokens_is_refused(made, name):
    with pytest.raises(Refusal, match=rf"^sample\.{name} has ' ': the tokenizer 'numbers' makes no token of it"):
        made(**{name: [" =1" if name == "logit_bias" else " "]})


def test_what_is_written_obeys(parrot, sampling):
    """Through the loop, with the text that it keeps, by a model that would break each rule."""
    bundle = parrot("abcdefg", context=61)
    write = lambda **fields: generate(bundle, ["abc"], sampling(max_new_tokens=23, **fields))[0].tokens
    pairs = lambda tokens: [*itertools.pairwise([*b"abc", *tokens])]
    plain = write()
    assert bytes(plain[:11]) == b"defgabcdefg"
    assert len(set(pairs(plain))) == 7 and len(set(pairs(write(no_repeat_ngram=2)))) == 25
    assert ord("f") not in write(banned=("f",)) and b"de" not in bytes(write(banned=("de",)))
    assert len(set(plain)) == 7 and len(set(write(presence_penalty=100.0))) == 23
