"""Training text → a tokenizer of the kind that the config spells."""

from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from lm.text.tokenizer import END, Tokenizer

UNKNOWN = "\ufffd"  # what a character tokenizer makes of a character it has not seen
_LEARN_CHARACTERS = 1 << 28  # of text that merges are learned from; more changes them no longer


def learn(section: Any, texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer: `byte`, `char` (the characters seen), or `bpe:SIZE` (byte-level BPE, as GPT-2's).

    Args:
      section: config.data; its `tokenizer` names the kind.
      texts: the training split.
    """
    name, _, size = section.tokenizer.partition(":")
    return Tokenizer(KINDS[name](texts, int(size or 0)), section.tokenizer)


def reads_text(kind: str) -> bool:
    """Say whether a kind of tokenizer depends on the training text."""
    return kind != "byte"


def key(section: Any) -> str:
    """Return what a tokenizer depends on beside the text."""
    return section.tokenizer


def _bytes(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    letters = _byte_letters()
    vocabulary = {letter: byte for byte, letter in enumerate(letters)} | {END: 256}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END])
    return inner


def _characters(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    seen: set[str] = set()
    for text in texts:
        seen.update(text)
    vocabulary = {letter: index for index, letter in enumerate([END, UNKNOWN, *sorted(seen - {UNKNOWN})])}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens([END])
    return inner


def _pairs(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_first(texts, _LEARN_CHARACTERS), trainer)
    return inner


KINDS = {"byte": _bytes, "char": _characters, "bpe": _pairs}


def _first(texts: Iterable[str], characters: int) -> Iterable[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)


def _byte_letters() -> list[str]:
    """Return the printable letter by which GPT-2's vocabulary writes each byte (its `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
