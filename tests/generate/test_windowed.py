"""Texts longer than the window beside a small model written out in NumPy, which keeps lists of what it has read."""

import jax
import numpy as np
import pytest

from lm.generate import decode, windowed
from lm.generate.generator import generate
from lm.generate.method import ready
from lm.model.positions import bucket
from lm.refusal import Refusal

LONG = "The quick brown fox jumps over the lazy dog, says: 0123456789."
PROMPTS = [LONG, "Hi", LONG[:17]]

CASES = {  # model, window, sinks
    "rotary, yarn, a share": (
        {
            "model__positions": "rotary",
            "model__rotary_scaling": "yarn",
            "model__rotary_factor": 2.0,
            "model__rotary_original_context": 9,
            "model__rotary_share": 0.7,
        },
        13,
        3,
    ),
    "alibi, windows": ({"model__positions": "alibi", "model__windows": (5, 0)}, 13, 3),
    "relative": ({"model__positions": "relative", "model__relative_buckets": 6, "model__relative_distance": 9}, 8, 0),
}


class Written:
    """A Llama-shaped model of one text, token by token; of the keys and values it has read it shows some."""

    def __init__(self, bundle, window, sinks):
        self.section, self.window, self.sinks = bundle.config.model, window, sinks
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), bundle.params)
        self.read = [[] for _ in range(self.section.layers)]  # (key (K, C), value (K, C)) of every token

    def __call__(self, token):
        """Return the log-probabilities of the next token."""
        x = self.params["embed"]["embedding"][token]
        for number, read in enumerate(self.read):
            layer = jax.tree.map(lambda leaf: leaf[number], self.params["decoder"]["block"])  # noqa: B023
            x = x + self._attention(_normed(x, layer["attention_norm"]), layer["attention"], read, number)
            inner = _normed(x, layer["feedforward_norm"])
            gate, inside = (inner @ layer["feedforward"][name]["kernel"] for name in ("gate", "in"))
            x = x + (gate / (1 + np.exp(-gate)) * inside) @ layer["feedforward"]["out"]["kernel"]
        logits = (_normed(x, self.params["decoder"]["norm"]) @ self.params["head"]["kernel"])[: self.section.vocabulary]
        return logits - np.log(np.sum(np.exp(logits)))

    def _attention(self, x, params, read, number):
        c = self.section
        query, key, value = (np.einsum("d,dhc->hc", x, params[name]["kernel"]) for name in ("query", "key", "value"))
        read.append((key, value))
        full = len(read) > self.window
        shown = read[: self.sinks] + read[len(read) - (self.window - self.sinks) :] if full else read
        last = len(shown) - 1  # the query's place is its own key's
        mixed = np.zeros_like(query)
        for head in range(c.heads):
            scores = np.full(len(shown), -np.inf)
            for place, (key, _) in enumerate(shown):
                near = key[head // (c.heads // c.kv_heads)]
                reach = c.windows[number % len(c.windows)] if c.windows else 0
                if not reach or last - place < reach:
                    scores[place] = self._turned(query[head], last) @ self._turned(near, place) * c.head_width**-0.5
                    scores[place] += self._bias(head, last - place)
            shares = np.exp(scores - scores.max())
            for share, (_, value) in zip(shares / shares.sum(), shown, strict=True):
                mixed[head] += share * value[head // (c.heads // c.kv_heads)]
        return np.einsum("hc,hcd->d", mixed, params["out"]["kernel"])

    def _turned(self, x, place):
        c = self.section
        if c.positions != "rotary":
            return x
        half = int(c.head_width * c.rotary_share) // 2
        rates, stretch = c.rotary_base ** (-np.arange(half) / half), 1.0
        if c.rotary_scaling == "yarn":  # of two pairs, of which the second turns less than once
            rates, stretch = rates * [1.0, 0.5], 0.1 * np.log(2.0) + 1
        whole = (x[:half] + 1j * x[half : 2 * half]) * np.exp(1j * place * rates) * stretch
        return np.concatenate([whole.real, whole.imag, x[2 * half :]])

    def _bias(self, head, distance):
        if self.section.positions == "alibi":
            return -(2.0 ** (-2 * (head + 1))) * distance
        if self.section.positions == "relative":
            return self.params["positions"]["embedding"][int(bucket(np.int32(distance), 6, 9)), head]
        return 0.0


def _normed(x, params):
    return x / np.sqrt(np.mean(x**2) + 1e-5) * params["scale"]


@pytest.mark.parametrize(("options", "window", "sinks"), CASES.values(), ids=CASES)
def test_long_prompts_and_texts_are_as_written_out(byte_bundle, sampling, options, window, sinks):
    """Prompts of several lengths side by side, the longest read in chunks; then far beyond the context."""
    bundle, section = (
        byte_bundle(model__family="llama", **options),
        sampling(window=window, sinks=sinks, max_new_tokens=19),
    )
    for prompt, completion in zip(PROMPTS, generate(bundle, PROMPTS, section), strict=True):
        model = Written(bundle, window, sinks)
        *_, scores = map(model, bundle.tokenizer.encode(prompt))
        for token, score in zip(completion.tokens, completion.logprobs, strict=True):
            assert token == scores.argmax() and score == pytest.approx(scores[token], abs=1e-4)
            scores = model(token)
        assert completion.finish_reason == "length" and len(completion.tokens) == 19


def test_a_chunk_is_as_its_tokens_one_by_one(byte_bundle, sampling, monkeypatch):
    bundle = byte_bundle(model__family="llama", model__context=64)
    section, logits = sampling(window=32, sinks=2), []
    rows = [list(LONG.encode()), list(LONG[:41].encode()), [7]]
    for size in (16, 5, 1):
        monkeypatch.setattr(windowed, "_CHUNK", size)
        reading = windowed.read(ready(bundle), section, rows, 9, 1)
        assert reading.text.lengths.tolist() == reading.text.begun.tolist() == [62, 41, 1]
        for ids, row in zip(reading.text.ids, rows, strict=True):
            np.testing.assert_array_equal(ids[: len(row)], row)
        assert all(leaf.shape[2] == 32 for layer in reading.cache for leaf in (layer.key, layer.value))
        logits.append(reading.logits)
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
    np.testing.assert_allclose(logits[2], logits[0], atol=1e-4)


def test_one_program_reads_prompts_of_many_lengths(byte_bundle, sampling):
    usable, begun = ready(byte_bundle(model__family="llama", model__context=24)), decode.read_on._cache_size()
    for length in (49, 52, 55):
        windowed.read(usable, sampling(window=24), [list(LONG[:length].encode())], 1, 1)
    assert decode.read_on._cache_size() - begun == 1  # the text's room is rounded, and chunks have one length


def test_positions_that_are_added_are_read_anew(byte_bundle, sampling):
    """Whenever a text fills the window, from its first 2 and last 18 - 2 tokens, whatever the others are at."""
    bundle = byte_bundle(model__family="gpt2", model__context=40)
    section = sampling(window=37, sinks=2, max_new_tokens=50)
    run = jax.jit(lambda ids: bundle.model.apply({"params": bundle.params}, ids, np.arange(40)[None], ids * 0 + 1))
    for prompt, completion in zip(PROMPTS[:2], generate(bundle, PROMPTS[:2], section), strict=True):
        text = list(prompt.encode())
        shown = text
        for token, score in zip(completion.tokens, completion.logprobs, strict=True):
            shown = [*text[:2], *text[-16:]] if len(shown) >= 37 else shown
            out = run(np.array([shown + [0] * (40 - len(shown))]))
            scores = jax.nn.log_softmax((out.hidden[0, len(shown) - 1] @ out.unembed)[:257])
            assert token == scores.argmax() and score == pytest.approx(float(scores[token]), abs=1e-4)
            text, shown = [*text, token], [*shown, token]


@pytest.mark.parametrize(
    ("positions", "window", "rolls"), [("rotary", 13, True), ("rotary", 0, False), ("learned", 13, False)]
)
def test_a_cache_rolls_where_tokens_can_change_their_places(byte_bundle, sampling, positions, window, rolls):
    usable = ready(byte_bundle(model__family="llama", model__positions=positions))
    assert windowed.rolls(usable, sampling(window=window)) == rolls


@pytest.mark.parametrize(
    ("options", "fields", "words"),
    [
        ({"model__family": "llama"}, {}, r"has 62 tokens: it must have at most 12.*sample\.window"),
        (
            {"model__family": "llama"},
            {"window": 14},
            r"sample\.window is 14: it must be at most the model's con",
        ),
        ({"model__family": "t5"}, {"window": 8}, r"sample\.window is 8: this model reads its prompt as a whole"),
        ({"objective__name": "prefix"}, {"window": 8}, r"sample\.window is 8: this model reads its prompt as a whole"),
    ],
)
def test_what_cannot_be_read_is_refused(byte_bundle, sampling, options, fields, words):
    with pytest.raises(Refusal, match=words):
        generate(byte_bundle(**options), [LONG if not fields else "Hi"], sampling(**fields))
