"""Texts against the full, uncached model, one token at a time; what is shown while they come."""

import functools

import jax
import numpy as np
import pytest

from lm.generate.generator import generate
from lm.model import cache as caches
from lm.model.transformer import Tokens
from lm.refusal import Refusal
from lm.text.learn import learn

PROMPTS = ["Hello", "a", "nine long"]


@pytest.fixture(scope="module")
def likeliest():
    """Return a function: bundle, ids, count → the likeliest next tokens and their log-probabilities, without a cache.

    When the ids fill the context, it goes on from the last half of them.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def scores_of(model, params, ids):
        positions = np.arange(ids.shape[1])[None]
        out = model.apply({"params": params}, ids, positions, np.ones(ids.shape, int))
        return jax.nn.log_softmax((out.hidden[0] @ out.unembed)[:, : model.config.vocabulary])

    def reference(bundle, ids, count):
        context = bundle.config.model.context
        tokens, scores, window = [], [], [int(token) for token in ids]
        for _ in range(count):
            window = window[-(context // 2) :] if len(window) >= context else window
            ids = np.array([window + [0] * (context - len(window))])
            row = np.asarray(scores_of(bundle.model, bundle.params, ids))[len(window) - 1]
            tokens.append(int(row.argmax()))
            scores.append(float(row.max()))
            window.append(tokens[-1])
        return tokens, scores

    return reference


@pytest.fixture(scope="module")
def bundle(byte_bundle):
    return byte_bundle(model__family="llama")


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_greedy_is_the_full_models_choice(byte_bundle, sampling, likeliest, family):
    """Beyond twice the context; prompts of different lengths, side by side and alone."""
    bundle, section = byte_bundle(model__family=family, model__tied=False), sampling(max_new_tokens=31)
    assert bundle.config.model.context * 2 < 31
    completions = [*generate(bundle, PROMPTS, section), *generate(bundle, PROMPTS[-1:], section)]
    for prompt, completion in zip([*PROMPTS, PROMPTS[-1]], completions, strict=True):
        tokens, scores = likeliest(bundle, bundle.tokenizer.encode(prompt), 31)
        assert completion.tokens == tokens and len(set(tokens)) > 3
        np.testing.assert_allclose(completion.logprobs, scores, atol=1e-4)
        assert completion.text == bundle.tokenizer.decode(tokens) and completion.finish_reason == "length"


def test_an_empty_prompt_begins_a_record(bundle, sampling, likeliest):
    (completion,) = generate(bundle, [""], sampling())
    assert completion.tokens == likeliest(bundle, [bundle.tokenizer.end], 9)[0]


@pytest.mark.parametrize("max_new_tokens", [1, 8, 11])
def test_as_many_tokens_as_asked_for(bundle, sampling, likeliest, max_new_tokens):
    (completion,) = generate(bundle, ["Hello"], sampling(max_new_tokens=max_new_tokens))
    assert completion.tokens == likeliest(bundle, bundle.tokenizer.encode("Hello"), max_new_tokens)[0]


def test_a_prompt_that_fills_the_context_is_refused(bundle, sampling):
    context = bundle.config.model.context
    (completion,) = generate(bundle, ["x" * (context - 1)], sampling(max_new_tokens=3))
    assert len(completion.tokens) == 3
    with pytest.raises(Refusal, match=rf"has {context} tokens"):
        generate(bundle, ["fine", "x" * context], sampling())


def test_a_context_that_fills_is_cut_whatever_stands_beside_it(byte_bundle, sampling):
    """Three prompts that fill it at different times, in the midst of chunks."""
    bundle = byte_bundle(model__family="llama", model__context=51, model__layers=1)
    prompts, section = ["Hello", "x" * 31, "y" * 40], sampling(temperature=1.0, max_new_tokens=67)
    for prompt, completion in zip(prompts, generate(bundle, prompts, section), strict=True):
        (alone,) = generate(bundle, [prompt], section)
        assert completion.tokens == alone.tokens
        np.testing.assert_allclose(completion.logprobs, alone.logprobs, atol=1e-4)


def test_end_of_text_stops(bundle, sampling):
    """Whatever token comes sixth is made the end of text."""
    (free,) = generate(bundle, ["Hello"], sampling(max_new_tokens=20, temperature=1.0))
    end = free.tokens[5]
    assert free.tokens.index(end) == 5
    usual, bundle.tokenizer.end = bundle.tokenizer.end, end
    try:
        pieces = []
        (completion,) = generate(
            bundle, ["Hello"], sampling(max_new_tokens=20, temperature=1.0), lambda index, text: pieces.append(text)
        )
        assert completion.tokens == free.tokens[:6] and completion.logprobs == free.logprobs[:6]
        assert completion.finish_reason == "stop"
        assert completion.text == bundle.tokenizer.decode(free.tokens[:5]) == "".join(pieces)
    finally:
        bundle.tokenizer.end = usual


def test_any_of_several_ends_stops(bundle, sampling, monkeypatch):
    section = sampling(max_new_tokens=20, temperature=1.0)
    (free,) = generate(bundle, ["Hello"], section)
    other = free.tokens[5]
    assert free.tokens.index(other) == 5
    monkeypatch.setattr(bundle.tokenizer, "_others", (other,))
    pieces = []
    (completion,) = generate(bundle, ["Hello"], section, lambda index, text: pieces.append(text))
    assert completion.tokens == free.tokens[:6] and completion.finish_reason == "stop"
    assert completion.text == bundle.tokenizer.decode(free.tokens[:5]) == "".join(pieces)


def test_sequences_differ_and_seeds_repeat(bundle, sampling):
    draw = lambda seed: generate(bundle, PROMPTS[:2], sampling(temperature=1.0, sequences=3, seed=seed))
    once, again, other = draw(0), draw(0), draw(1)
    tokens = lambda completions: [completion.tokens for completion in completions]
    assert len(once) == 6 and tokens(once) == tokens(again)
    assert len({tuple(completion.tokens) for completion in once + other}) == 12


@pytest.mark.parametrize("fields", [{"family": "gpt2"}, {"family": "gemma3"}, {"family": "llama", "prefix": True}])
def test_prompts_side_by_side_are_prompts_alone(byte_bundle, sampling, fields):
    """Drawn ones too: what a text becomes depends on no other; past the context, with ends at different times."""
    objective = {"objective__name": "prefix"} if fields.get("prefix") else {}
    bundle = byte_bundle(model__family=fields["family"], model__tied=False, **objective)
    section = sampling(temperature=1.3, sequences=2, max_new_tokens=30)
    together = generate(bundle, PROMPTS, section)
    alone = [completion for prompt in PROMPTS for completion in generate(bundle, [prompt], section)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    np.testing.assert_allclose(together[3].logprobs, alone[3].logprobs, atol=1e-4)
    assert len({tuple(one.tokens) for one in together}) == 6


@pytest.mark.parametrize("stop", [("cd",), ("xx", "de"), ("\ufffd", "abcdefa")])
def test_a_stop_string_ends_the_text(parrot, sampling, stop):
    """Also one over several tokens; none of it is shown, and what only begins like one is."""
    section = sampling(max_new_tokens=24, stop=stop)
    (completion,), seen = _watched(parrot("abcdef", 64), ["abcdef"], section)
    whole = "abcdef" * 4
    places = [whole.find(one) for one in stop if one in whole]
    assert completion.text == whole[: min(places)] == "".join(seen)
    assert completion.finish_reason == "stop_string" and len(completion.logprobs) == len(completion.tokens)
    written = bytes(completion.tokens).decode()  # the tokens end with what stopped them
    assert written == whole[: len(written)] and written.endswith(stop) and written[:-1].find(stop[0]) < 0


def test_a_stop_string_that_does_not_come(parrot, sampling):
    """Its beginning is the text's end."""
    (completion,), seen = _watched(parrot("abcdef", 64), ["abcdef"], sampling(max_new_tokens=9, stop=("cdx", "abcx")))
    assert completion.text == "abcdefabc" and completion.finish_reason == "length" and len(seen) > 1


def test_ids_are_taken_as_they_are(bundle, sampling):
    (text, ids) = generate(bundle, ["Hello", [*b"Hello"]], sampling())
    assert text.tokens == ids.tokens
    with pytest.raises(Refusal, match="has 13 tokens"):
        generate(bundle, [[1] * 13], sampling())


def test_logprobs_are_the_models_whatever_the_sampler(bundle, sampling, likeliest):
    """Scores of drawn tokens are those of the model, without temperature, top-k or top-p."""
    (completion,) = generate(bundle, ["Hi"], sampling(temperature=2.0, top_k=9, top_p=0.95, max_new_tokens=8))
    ids = bundle.tokenizer.encode("Hi").tolist() + completion.tokens
    positions = np.arange(len(ids))[None]
    out = jax.jit(bundle.model.apply)(
        {"params": bundle.params}, np.array([ids]), positions, np.ones((1, len(ids)), int)
    )
    scores = jax.nn.log_softmax((out.hidden[0] @ out.unembed)[:, : bundle.config.model.vocabulary])
    expected = [float(scores[place + 1, token]) for place, token in enumerate(completion.tokens)]
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
    assert completion.tokens != likeliest(bundle, ids[:2], 8)[0]


def _watched(bundle, prompts, section):
    pieces = [""] * len(prompts) * section.sequences
    seen = []

    def watch(index, text):
        assert text
        pieces[index] += text
        seen.append(text)

    completions = generate(bundle, prompts, section, watch)
    assert pieces == [completion.text for completion in completions]
    return completions, seen


@pytest.mark.parametrize("text", ["é", "añ", "€", "𝄞"])
def test_characters_of_several_tokens_are_shown_whole(parrot, sampling, text):
    (completion,), seen = _watched(parrot(text, 64), [text], sampling(max_new_tokens=24))
    assert completion.text == text * (24 // len(text.encode())) and "\ufffd" not in "".join(seen) and len(seen) > 2


def test_a_character_cut_short_is_shown_at_the_end(parrot, sampling):
    (completion,), seen = _watched(parrot("x𝄞", 64), ["x𝄞"], sampling(max_new_tokens=24))
    assert completion.text == 4 * "x𝄞" + "x\ufffd" and seen[-1] == "\ufffd"


def test_pieces_of_noise_are_the_text(bundle, sampling):
    """Most random bytes are no UTF-8."""
    completions, seen = _watched(bundle, PROMPTS[:2], sampling(temperature=1.0, sequences=2, max_new_tokens=30))
    assert len(seen) > 8 and any("\ufffd" in completion.text for completion in completions)


def test_words_go_on_from_the_prompt_with_their_space(tiny, bundle, sampling):
    """WordPiece writes a space before a word, but not before the first: a continuation is no beginning."""
    texts = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    words = learn(tiny(data__tokenizer="wordpiece:258").data, texts)
    spaced = bundle._replace(tokenizer=words)
    completions, _ = _watched(spaced, ["ab cd"], sampling(temperature=1.0, sequences=7, max_new_tokens=5))
    for completion in completions:
        parts = [words._inner.id_to_token(index) or "" for index in completion.tokens if index != words.end]
        whole = "".join(part.removeprefix("##") if part.startswith("##") else f" {part}" for part in parts if part)
        assert completion.text == whole
    assert any(completion.text.startswith(" ") for completion in completions)


@pytest.fixture(scope="module")
def answering(byte_bundle):
    return byte_bundle(
        model__architecture="encoder_decoder", model__positions="relative", model__encoder_layers=3, model__tied=False
    )


def test_an_answer_is_the_full_models_choice(answering, sampling):
    """Prompts of different lengths side by side; the decoder begins with the end of text, having no padding token."""
    model, tokenizer = answering.model, answering.tokenizer
    completions = generate(answering, [*PROMPTS, ""], sampling(max_new_tokens=99))
    end = tokenizer.end
    assert tokenizer.specials.start == end
    run = jax.jit(lambda *rows, **tokens: model.apply({"params": answering.params}, *rows, **tokens))
    for prompt, completion in zip([*PROMPTS, ""], completions, strict=True):
        source = np.array([[*tokenizer.encode(prompt), end]])
        encoder = Tokens(source, np.arange(source.shape[1])[None], np.ones_like(source))
        said = np.array([[end, *completion.tokens[:-1]]])
        assert said.shape[1] == 12  # as many as the context has room for behind the first
        out = run(said, np.arange(12)[None], np.ones_like(said), encoder=encoder)
        scores = jax.nn.log_softmax((out.hidden[0] @ out.unembed)[:, :257])
        np.testing.assert_array_equal(completion.tokens, scores.argmax(-1))
        np.testing.assert_allclose(completion.logprobs, scores.max(-1), atol=1e-4)
        assert completion.text == tokenizer.decode(completion.tokens) and completion.finish_reason == "length"
    assert len({tuple(completion.tokens) for completion in completions}) == 4


def test_answers_of_a_full_context_differ(answering, sampling):
    drawn = generate(answering, ["x" * 12], sampling(temperature=1.0, sequences=3, max_new_tokens=8))
    assert len({tuple(completion.tokens) for completion in drawn}) == 3
    assert [len(completion.tokens) for completion in drawn] == [8, 8, 8]
    with pytest.raises(Refusal, match="has 14 tokens"):
        generate(answering, ["x" * 13], sampling())


def test_few_programs_are_compiled(byte_bundle, sampling):
    """One to add tokens, whatever the settings; one for every length that is read: 16, 20 and 32, as a full context."""
    bundle, compiled = byte_bundle(model__context=61), []
    prompts = ("Hello", "Hi", "nine long", "sixteen long now", "xyz", "x" * 17, "x" * 31, "")

    def count(event, seconds, **words):
        if "backend_compile" in event and words.get("fun_name") in ("jit(prefill)", "jit(extend)"):
            compiled.append(words["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for number, prompt in enumerate(prompts):
            generate(bundle, [prompt], sampling(temperature=number / 3, top_k=number, max_new_tokens=99 - number))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert sorted(compiled) == ["jit(extend)", *["jit(prefill)"] * 3]


def test_a_long_context_takes_no_more_memory_than_the_text(byte_bundle, sampling, monkeypatch):
    slots, empty = [], caches.empty
    monkeypatch.setattr(
        caches, "empty", lambda config, rows, length, *more: slots.append(length) or empty(config, rows, length, *more)
    )
    long = byte_bundle(model__family="llama", model__context=4096)
    assert len(generate(long, PROMPTS[:1], sampling())[0].tokens) == 9
    assert slots == [16]


def test_a_prompt_is_opened_as_its_tokenizer_opens_texts(bundle, sampling, monkeypatch):
    plain = generate(bundle, ["XaY"], sampling())[0].tokens
    monkeypatch.setattr(type(bundle.tokenizer), "opening", (ord("X"),))
    assert generate(bundle, ["aY"], sampling())[0].tokens == plain != generate(bundle, ["Y"], sampling())[0].tokens
