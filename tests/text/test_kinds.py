"""WordPiece and Unigram cut text as their papers say, beside a plain search for the same cut."""

import json
import math
import random
import string
import unicodedata
from types import SimpleNamespace

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from lm.text import learn
from lm.text.tokenizer import bytes_per_token

chance = random.Random(7)
WORDS = ["".join(chance.choices("etaoinshé", k=chance.randint(2, 9))) for _ in range(97)]
TEXTS = [" ".join(chance.choices(WORDS, range(97, 0, -1), k=61)) + "." for _ in range(53)]
LETTERS = "etaoinshé xyz.,'[]#日本 \t\n0"


def learned(kind, texts=TEXTS):
    return learn.learn(
        SimpleNamespace(tokenizer=kind, normalization="none", end_token="", mask_token="", sentinels=0), texts
    )


WORD_PIECES, UNIGRAM = learned("wordpiece:311"), learned("unigram:499")


def words_of(text):
    """Return BERT's words: split at white space, at punctuation and around Han characters."""
    words = [""]
    for letter in text:
        if letter.isspace():
            words.append("")
        elif letter in string.punctuation or unicodedata.name(letter, "").startswith("CJK"):
            words += [letter, ""]
        else:
            words[-1] += letter
    return [word for word in words if word]


def longest_match(word, vocabulary):
    """Return a word's parts, the longest that is known first, or [UNK] (Schuster and Nakajima 2012)."""
    parts, start = [], 0
    while start < len(word):
        for stop in range(len(word), start, -1):
            part = ("##" if start else "") + word[start:stop]
            if part in vocabulary:
                parts.append(part)
                start = stop
                break
        else:
            return ["[UNK]"]
    return parts


@settings(deadline=None)
@given(text=st.text(st.sampled_from(LETTERS), max_size=41))
def test_words_are_cut_by_the_longest_match(text):
    vocabulary = WORD_PIECES._inner.get_vocab()
    expected = [part for word in words_of(text) for part in longest_match(word, vocabulary)]
    assert [WORD_PIECES._inner.id_to_token(int(index)) for index in WORD_PIECES.encode(text)] == expected


def test_word_pieces_give_words_back_without_their_spaces():
    text = TEXTS[0].replace(".", " .")
    assert WORD_PIECES.decode(WORD_PIECES.encode(text)) == text
    assert WORD_PIECES.decode(WORD_PIECES.encode(f"  {TEXTS[0]}\n")) == text
    assert WORD_PIECES.decode(WORD_PIECES.encode("ton 3")) == "ton [UNK]"
    assert len(WORD_PIECES.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    assert WORD_PIECES.decode(WORD_PIECES.encode("e" * 101)) == "[UNK]"  # as BERT's


@pytest.mark.parametrize("size", [258, 311, 997])
def test_size_is_never_exceeded_and_half_of_it_is_for_letters(size):
    many = ["".join(chr(0xAC00 + (step * number) % 991) for number in range(97)) for step in range(1, 31)]
    for texts in (TEXTS, many, []):
        for kind in ("wordpiece", "unigram", "bpe"):
            assert learned(f"{kind}:{size}", texts).size <= size
    words = learned(f"wordpiece:{size}", many)
    parts = [part for part in words._inner.get_vocab() if part not in ("<|endoftext|>", "[UNK]")]
    assert sum(len(part.removeprefix("##")) == 1 for part in parts) == size // 2


def likeliest(word, scores):
    """Return the best sum of scores over all ways to cut a word."""
    best = [0.0] + [-math.inf] * len(word)
    for stop in range(1, len(word) + 1):
        for start in range(stop):
            best[stop] = max(best[stop], best[start] + scores.get(word[start:stop], -math.inf))
    return best[-1]


SCORES = dict(json.loads(UNIGRAM._inner.to_str())["model"]["vocab"])


@settings(deadline=None)
@given(text=st.text(st.sampled_from(LETTERS), max_size=41))
def test_of_all_cuts_the_likeliest_is_taken(text):
    first = pre_tokenizers.ByteLevel(add_prefix_space=False)
    expected = sum(likeliest(word, SCORES) for word, _ in first.pre_tokenize_str(text))
    found = sum(SCORES[UNIGRAM._inner.id_to_token(int(index))] for index in UNIGRAM.encode(text))
    assert found == pytest.approx(expected, abs=1e-6)


def test_scores_are_log_probabilities_and_every_byte_has_one():
    scores = {part: score for part, score in SCORES.items() if part != "<|endoftext|>"}
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(scores)
    assert sum(map(math.exp, scores.values())) == pytest.approx(1, abs=0.1)


def test_unigram_is_as_short_as_the_other_librarys():
    theirs = tokenizers.Tokenizer(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.UnigramTrainer(vocab_size=499, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(TEXTS, trainer)
    length = sum(len(theirs.encode(text).ids) for text in TEXTS)
    assert bytes_per_token(UNIGRAM, TEXTS) > 0.97 * sum(len(text.encode()) for text in TEXTS) / length


def test_bytes_per_token_is_what_it_says():
    assert bytes_per_token(learned("byte"), ["naïve", "日本"]) == 1
    assert bytes_per_token(learned("char", ["naïve日本"]), ["naïve", "日本"]) == 12 / 7
