"""Texts with a draft against texts without, token for token; draws against the probabilities that they should have."""

import functools
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tokenizers
from scipy import stats

from lm.generate import lookup, speculative
from lm.generate import sampling as plain
from lm.generate.generator import Generator, generate
from lm.generate.method import ready
from lm.generate.samplers import Text
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.text.tokenizer import Tokenizer
from lm.weights.bundle import Bundle

PROMPTS = ["Hello", "a", "nine long", ""]

# ---- At temperature 0: the same texts, beyond the context, of rows of various lengths side by side.

MODELS = {
    "windows": {"model__family": "gemma3", "model__windows": (3, 11)},
    "learned": {"model__family": "gpt2", "model__layers": 1},
    "alibi": {"model__positions": "alibi", "model__layers": 1},
    "answering": {
        "model__architecture": "encoder_decoder",
        "model__positions": "relative",
        "model__layers": 1,
        "model__encoder_layers": 1,
    },
}


@pytest.fixture(scope="module")
def written(byte_bundle, sampling):
    """Return a function: name of a model → its Bundle, and what it writes without a draft."""

    @functools.cache
    def write(name):
        bundle = byte_bundle(**MODELS[name], model__tied=False)
        return bundle, generate(bundle, PROMPTS, sampling(max_new_tokens=31))

    return write


def _drafts(bundle, byte_bundle, random_params):
    return {
        "lookup": lambda: None,
        "itself": lambda: bundle,
        "other": lambda: bundle._replace(params=random_params(bundle.model, seed=1)),
        "shorter": lambda: byte_bundle(model__family="gpt2", model__context=7, model__layers=1),
    }


@pytest.mark.parametrize(
    ("name", "draft"),
    [
        ("windows", "itself"),
        ("windows", "other"),
        ("windows", "lookup"),
        ("learned", "shorter"),
        ("alibi", "lookup"),
        ("answering", "itself"),
        ("answering", "lookup"),
    ],
)
def test_greedy_is_plain_greedy(written, byte_bundle, sampling, random_params, name, draft):
    bundle, expected = written(name)
    section = sampling(max_new_tokens=31, draft="lookup" if draft == "lookup" else "PLACE", draft_tokens=3)
    completions = Generator(bundle, _drafts(bundle, byte_bundle, random_params)[draft]())(PROMPTS, section)
    for ours, theirs in zip(completions, expected, strict=True):
        assert ours.tokens == theirs.tokens and ours.finish_reason == theirs.finish_reason
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
        numbers = ours.numbers
        assert sum(1 + numbers["accepted"] for _ in range(numbers["passes"])) >= len(ours.tokens) - 1e-6
        if draft == "itself":  # but for the context's ends there are four tokens a pass
            assert numbers["accepted"] > 2.5 and numbers["passes"] <= len(ours.tokens) / 4 + 3
        if draft == "other":
            assert numbers["accepted"] < 0.3


def test_what_repeats_is_looked_up(parrot, sampling):
    """From the second time on all guesses are right; one program makes them."""
    section, compiled = sampling(max_new_tokens=40, draft="lookup", draft_tokens=7), []
    bundle = parrot("abcdefghijk", 64)
    bundle = bundle._replace(params=jax.device_put(bundle.params, jax.devices()[0]))  # as a PLACE gives them

    def count(event, seconds, **words):
        if "backend_compile" in event and words.get("fun_name") == "jit(_extend)":
            compiled.append(words)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        (completion,) = generate(bundle, ["abcdefghijkabc"], section)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert len(compiled) == 1
    assert completion.text == ("defghijkabc" * 4)[:40]
    assert completion.numbers == {"accepted": 7.0, "passes": 5}


# ---- What is guessed from the text.


def _followed(before, ids, count):
    """Return the guess, by a search from the end back."""
    whole = [*before, *ids]
    for size in (3, 2, 1):
        tail = ids[-size:]
        for place in range(len(whole) - 1, size - 1, -1) if len(tail) == size else ():
            if whole[place - size : place] == tail:
                guessed = list(whole)
                for step in range(count):
                    guessed.append(guessed[place + step])
                return guessed[len(whole) :]
    return ids[-1:] * count


@pytest.mark.parametrize("begins", [0, 7])
def test_guesses_are_what_followed_before(begins):
    generator = np.random.default_rng(begins)
    rows, slots, count = 300, 23, 5
    ids, before = generator.integers(0, 4, (rows, slots)), generator.integers(0, 4, (rows, begins))
    lengths = generator.integers(1, slots + 1, rows)
    ids[:40] = np.arange(slots)[None]  # in which nothing comes back
    ours = lookup.guess(jnp.asarray(before), Text(jnp.asarray(ids), lengths, lengths), count)
    expected = [
        _followed(before[row].tolist(), ids[row, :length].tolist(), count) for row, length in enumerate(lengths)
    ]
    np.testing.assert_array_equal(ours, expected)


# ---- Draws: three tokens of a vocabulary of five, of which 0 ends a text, against all texts' probabilities.

COUNT = 20_000
PROMPT = [1, 2, 3, 1, 2]
SETTINGS = [
    {"temperature": 1.0},
    {
        "temperature": 1.6,
        "top_k": 4,
        "top_p": 0.95,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.6,
        "min_new_tokens": 2,
    },
]


@pytest.fixture(scope="module")
def five(tiny, random_params):
    """Return a function: seed → a Bundle of five ids."""
    words = tokenizers.models.WordLevel({str(index): index for index in range(5)}, unk_token="0")
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), "five", "0")

    @functools.cache
    def make(seed):
        config = tiny(model__family="llama", model__layers=1)
        model = Transformer(ml_collections.FrozenConfigDict(config.model.to_dict() | {"vocabulary": 5}))
        return Bundle(config, model, random_params(model, seed=seed), tokenizer)

    return make


@functools.cache
def _logits(bundle_of, seed):
    """Return the logits that follow the prompt and every text of up to two tokens, of the whole model: text → (5,)."""
    bundle = bundle_of(seed)
    texts = [text for size in range(3) for text in itertools.product(range(5), repeat=size)]
    ids = np.array([[*PROMPT, *text, 0, 0][: len(PROMPT) + 2] for text in texts])
    places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, places, np.ones_like(ids))
    logits = np.asarray((out.hidden @ out.unembed)[:, :, :5], np.float64)
    return {text: logits[row, len(PROMPT) + len(text) - 1] for row, text in enumerate(texts)}


def _shares(logits, text, fields):
    """Return the probabilities of a draw, by the settings written out."""
    value = lambda name, usual: fields.get(name, usual)
    logits = np.array(logits)
    for token in {*PROMPT, *text}:
        penalty = value("repetition_penalty", 1.0)
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    for token in set(text):
        logits[token] -= value("presence_penalty", 0.0)
    if len(text) < value("min_new_tokens", 0):
        logits[0] = -np.inf
    logits = logits / fields["temperature"]
    order = np.argsort(-logits)
    logits[order[value("top_k", 5) :]] = -np.inf
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    before = np.cumsum(shares[order]) - shares[order]
    shares[order[before >= value("top_p", 1.0)]] = 0
    shares[shares < value("min_p", 0.0) * shares.max()] = 0
    return shares / shares.sum()


def _written(five, sampling, draft, fields, count):
    """Return the tokens of each text, and the numbers, of so many tokens at most."""
    section = sampling(**fields, sequences=COUNT, max_new_tokens=count, draft=draft, draft_tokens=2, seed=5)
    guesses = ready(five(1)) if draft == "PLACE" else None
    return speculative.speculate(ready(five(0)), [PROMPT], section, lambda index, tokens: False, guesses)


@pytest.mark.parametrize("fields", SETTINGS, ids=lambda fields: " ".join(fields))
@pytest.mark.parametrize("draft", ["lookup", "PLACE"])
def test_texts_have_the_models_probabilities(five, sampling, draft, fields):
    """χ² of 20,000 texts; those too rare for it are held as one."""
    logits = _logits(five, 0)
    shares = {text: _shares(logits[text], text, fields) for text in logits}
    chances = {}
    for text in itertools.product(range(5), repeat=3):
        ended = text[: text.index(0) + 1] if 0 in text else text
        chances[ended] = np.prod([shares[ended[:size]][token] for size, token in enumerate(ended)])
    assert abs(sum(chances.values()) - 1) < 1e-9 and len(chances) == 1 + 4 + 16 * 5
    counts = dict.fromkeys(chances, 0)
    for text in _written(five, sampling, draft, fields, 3):
        counts[tuple(text.tokens)] += 1
    seen, expected = np.array(list(counts.values())), COUNT * np.array(list(chances.values()))
    assert not seen[expected == 0].any()
    is_rare = expected < 10
    pool = lambda values: np.append(values[~is_rare], values[is_rare].sum())
    seen, expected = pool(seen), pool(expected)
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert len(seen) > 8
    assert ((seen - expected) ** 2 / expected).sum() < stats.chi2.ppf(0.999, len(seen) - 1)


@pytest.mark.parametrize("draft", ["lookup", "PLACE"])
def test_guesses_are_kept_at_the_best_rate(five, sampling, draft):
    """Of one guess Σ min(p, q) (Leviathan et al. 2023, theorem 3.5); here two are made."""
    fields = SETTINGS[1]
    shares = {text: _shares(logits, text, fields) for text, logits in _logits(five, 0).items()}
    guessed = _guessed(five, draft, fields)
    both = lambda text: np.minimum(shares[text], guessed(text))
    rate = sum(one * (1 + (both((token,)).sum() if token else 0)) for token, one in enumerate(both(())))
    kept = [text.numbers["accepted"] for text in _written(five, sampling, draft, fields, 1)]
    assert 0.05 < rate < 1.95 and abs(np.mean(kept) - rate) < 4 * np.std(kept) / COUNT**0.5


def _guessed(five, draft, fields):
    """Return a function: text → the probabilities of the guess of its next token."""
    if draft == "PLACE":
        logits = _logits(five, 1)
        return lambda text: _shares(logits[text], text, fields)
    guesses = _followed([], PROMPT, 2)  # both are guessed at once
    return lambda text: np.eye(5)[guesses[len(text)]] * (list(text) == guesses[: len(text)])


# ---- Rows by themselves.


@pytest.mark.parametrize("draft", ["", "lookup", "PLACE"])
def test_texts_depend_on_no_other_text(written, sampling, random_params, draft, monkeypatch):
    """Nor on when the host looks; beyond the context."""
    bundle, _ = written("windows")
    writer = Generator(bundle, bundle._replace(params=random_params(bundle.model, seed=1)))
    section = sampling(temperature=1.5, max_new_tokens=29, draft=draft, draft_tokens=3)
    texts = [completion.tokens for completion in writer(PROMPTS, section)]
    others = writer(["eleven long", "a", "", "Hello"], section)
    assert [completion.tokens for completion in others][1:] == [texts[1], texts[3], texts[0]]
    monkeypatch.setattr(plain, "_CHUNK", 1)
    assert [completion.tokens for completion in writer(PROMPTS, section)] == texts


# ---- What is no draft.


def test_drafts_that_are_none_are_refused(tiny, byte_bundle, five, sampling):
    bundle = byte_bundle(model__family="llama")
    with pytest.raises(Refusal, match=r"sample.draft is 'runs/small': .* give its Bundle"):
        generate(bundle, ["Hi"], sampling(draft="runs/small"))
    with pytest.raises(Refusal, match=r"sample.draft has the token '0' where the model has .* \(id 0\)"):
        Generator(bundle, five(0))
    words = learn(tiny(data__tokenizer="char").data, ["abc"])
    with pytest.raises(Refusal, match="same tokenizer"):
        Generator(bundle, bundle._replace(tokenizer=words))
    answering = byte_bundle(**MODELS["answering"])
    with pytest.raises(Refusal, match=r"sample.draft has the architecture 'encoder_decoder': it must be the model's"):
        Generator(bundle, answering)
