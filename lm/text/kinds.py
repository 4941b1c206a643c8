"""Texts in, a tokenizer learned from them out: a function a kind, each (texts, SIZE, end-of-text) → tokenizer.

All of them give the same tokenizer for the same texts, whatever the threads do.
"""

import io
from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lm.refusal import extra
from lm.text import sentencepiece

UNKNOWN = "\ufffd"  # what a character tokenizer makes of a character it has not seen
UNKNOWN_WORD = "[UNK]"
_LEARN_CHARACTERS = 1 << 28  # of text that a vocabulary is learned from; more changes it no longer
_THREADS = 4  # that share the sums of unigram's learning: another number rounds them differently
_REPEATS = 1000  # of a word in one text to learn from


def byte(texts: Iterable[str], size: str, end: str) -> tokenizers.Tokenizer:
    """The 256 bytes of UTF-8, and the end."""
    vocabulary = {letter: byte for byte, letter in enumerate(byte_letters())} | {end: 256}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([end])
    return inner


def char(texts: Iterable[str], size: str, end: str) -> tokenizers.Tokenizer:
    """The characters of the texts; another one is UNKNOWN."""
    seen: set[str] = set()
    for text in texts:
        seen.update(text)
    vocabulary = {letter: index for index, letter in enumerate([end, UNKNOWN, *sorted(seen - {UNKNOWN})])}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens([end])
    return inner


def bpe(texts: Iterable[str], size: str, end: str) -> tokenizers.Tokenizer:
    """Pairs of bytes, the most frequent merged first (Sennrich et al. 2016, arXiv 1508.07909), in GPT-2's words."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(size),
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_first(texts, _LEARN_CHARACTERS), trainer)
    return inner


def unigram(texts: Iterable[str], size: str, end: str) -> tokenizers.Tokenizer:
    """Strings of bytes with a probability each, the likeliest cut wins (Kudo 2018, arXiv 1804.10959, §3.2).

    In GPT-2's words, and with every byte, so that no text is unknown. Learned by SentencePiece: the trainer of the
    tokenizers library sums in an order that changes from run to run.
    """
    library = extra("sentencepiece", "sentencepiece", "data.tokenizer unigram:SIZE is learned by SentencePiece")
    first = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(byte_letters()) + _words(first, texts)
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in sorted(words.items())),
        input_format="tsv",
        model_writer=written,
        model_type="unigram",
        vocab_size=int(size),
        hard_vocab_limit=False,  # few words have few parts
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        bos_id=-1,
        eos_id=-1,
        num_threads=_THREADS,
        minloglevel=2,
    )
    pieces = sentencepiece.read(written.getvalue()).pieces[1:]  # the first is for what is unknown: nothing is
    inner = tokenizers.Tokenizer(models.Unigram([(end, 0.0), *((piece.text, piece.score) for piece in pieces)]))
    inner.pre_tokenizer = first
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([end])
    return inner


def wordpiece(texts: Iterable[str], size: str, end: str) -> tokenizers.Tokenizer:
    """Parts of words, `##` before all but the first, longest match first (Schuster and Nakajima 2012), as BERT's.

    Merged by frequency, as the tokenizers library does it. White space is lost, and so is a word with a letter that
    is not among the SIZE / 2 most frequent ones: it is UNKNOWN_WORD.
    """
    normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    first = pre_tokenizers.BertPreTokenizer()
    words = _words(first, map(normalizer.normalize_str, texts))
    letters = Counter()
    for word, count in words.items():
        letters.update(dict.fromkeys(_spelled(word), count))
    alphabet = sorted(letters, key=lambda letter: (-letters[letter], letter))[: int(size) // 2]
    whole = [word for word in sorted(words) if set(alphabet).issuperset(_spelled(word))]
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN_WORD))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [end, UNKNOWN_WORD, *alphabet]  # the trainer would number letters as they come out of a hash table
    trainer = trainers.WordPieceTrainer(vocab_size=int(size), special_tokens=special, show_progress=False)
    learner.train_from_iterator(_repeated(whole, words), trainer)
    inner = tokenizers.Tokenizer(
        models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN_WORD, max_input_chars_per_word=100)
    )
    inner.normalizer = normalizer
    inner.pre_tokenizer = first
    inner.decoder = decoders.WordPiece(cleanup=False)
    inner.add_special_tokens([end, UNKNOWN_WORD])
    return inner


def _words(first: pre_tokenizers.PreTokenizer, texts: Iterable[str]) -> Counter[str]:
    """Return how often the texts have each word, as the first step of a tokenizer cuts them."""
    words: Counter[str] = Counter()
    for text in _first(texts, _LEARN_CHARACTERS):
        words.update(word for word, _ in first.pre_tokenize_str(text))
    return words


def _spelled(word: str) -> list[str]:
    return [word[0], *(f"##{letter}" for letter in word[1:])]


def _repeated(words: Iterable[str], counts: Counter[str]) -> Iterable[str]:
    for word in words:
        for done in range(0, counts[word], _REPEATS):
            yield f"{word} " * min(_REPEATS, counts[word] - done)


def _first(texts: Iterable[str], characters: int) -> Iterable[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)


def byte_letters() -> list[str]:
    """Return the printable letter by which GPT-2's vocabulary writes each byte (its `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
