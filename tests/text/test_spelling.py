"""What each token writes: together, what the tokenizer reads."""

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from lm.text import sentencepiece
from lm.text.learn import learn
from lm.text.spelling import spelling
from lm.text.tokenizer import Tokenizer

TEXTS = [
    "the cat sat on the mat, and the dog sat too.",
    "def cat(mat): return 3.14 * mat  # été",
    "日本語 naïve 🙂 one\ntwo",
]
KINDS = ["byte", "char", "bpe:311", "unigram:311", "wordpiece:311"]


def pieces(byte_fallback, dummy_prefix):
    """Return the tokenizer of a SentencePiece model of letters, two words and bytes."""
    letters = sorted(set("".join(TEXTS)) - {" ", "\n", "日", "🙂"})
    found = [sentencepiece.Piece("<unk>", type=2), sentencepiece.Piece("</s>", type=3)]
    found += [sentencepiece.Piece(f"<0x{byte:02X}>", type=6) for byte in range(256) if byte_fallback]
    found += [sentencepiece.Piece(text, -2.0 - len(text)) for text in ["▁", "▁cat", "▁▁", "at", *letters]]
    model = sentencepiece.Model(
        tuple(found), byte_fallback=byte_fallback, dummy_prefix=dummy_prefix, remove_extra_whitespaces=False
    )
    return Tokenizer(sentencepiece.convert(model), "sentencepiece:m", "</s>")


def metaspace():
    """Return a tokenizer as T5's file has it."""
    words = ["<unk>", "</s>", "▁", "▁the", "▁cat", "s", *sorted(set("thecatsondg,.&mu"))]
    inner = tokenizers.Tokenizer(models.Unigram([(word, -float(len(word))) for word in dict.fromkeys(words)], 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(inner, "file:t5", "</s>")


MADE = {
    "sentencepiece of bytes": (lambda: pieces(True, True), True),
    "sentencepiece as Gemma's": (lambda: pieces(True, False), False),
    "sentencepiece without bytes": (lambda: pieces(False, True), True),
    "metaspace": (metaspace, True),
}


@pytest.mark.parametrize("kind", [*KINDS, *MADE])
def test_tokens_bytes_are_the_text(kind, tiny):
    """As texts are cut, and at random; behind another text, and where a text begins."""
    if kind in MADE:
        make, is_led = MADE[kind]
        tokenizer = make()
    else:
        tokenizer, is_led = learn(tiny(data__tokenizer=kind).data, TEXTS), kind.startswith("wordpiece")
    found = spelling(tokenizer)
    assert found.is_led == is_led
    assert not any(found.tokens[index] for index in (*tokenizer.specials.unwritten, *tokenizer.ends))
    written = [index for index, token in enumerate(found.tokens) if token]
    assert len(written) > 0.9 * (tokenizer.size - len(tokenizer.specials.unwritten))
    whole = [index for index in written if "\ufffd" not in found.tokens[index].decode(errors="replace")]
    generator, before = np.random.default_rng(0), tokenizer.encode("so").tolist()
    rows = [[index for index in tokenizer.encode(text).tolist() if found.tokens[index]] for text in TEXTS]
    for ids in [*rows, *(generator.choice(whole, 5).tolist() for _ in range(50))]:
        text = b"".join(found.tokens[index] for index in ids).decode()
        assert tokenizer.decode(ids, before) == text
        if text[:1] == " " or not is_led:
            assert tokenizer.decode(ids) == text[is_led:]
