"""Every kind gives text back, and gives the ids that its slow or foreign counterpart gives."""

import os
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, processors

from lm.refusal import Refusal
from lm.text import learn as learning
from lm.text import tokenizer
from lm.text.tokenizer import END

KINDS = ("byte", "char", "bpe:311", "unigram:311")
TRICKY = (
    "",
    " ",
    "\n",
    "  two\t\ttabs  \r\n\r\n\n",
    f"a document {END} that spells it{END}",
    "<|endoftext",
    "naïve café 日本語 🙂🏽 e\u0301 \u200d\ufeff\ufffd\u2028\x00\x1c\x85\xa0",
    "don't I'll we've 12345 3.14 ___ !!! ((()))",
)


def learn(kind, texts, **fields):
    """Return the tokenizer of a kind; the section's other fields are as by default unless given."""
    section = SimpleNamespace(
        **{"tokenizer": kind, "normalization": "none", "end_token": "", "mask_token": "", "sentinels": 0} | fields
    )
    return learning.learn(section, texts)


def corpus():
    """Return texts of made-up words, the same every time."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdeéß日.", k=chance.randint(1, 9))) for _ in range(331)]
    return [" ".join(chance.choices(words, k=97)) + "\n" for _ in range(53)] + [f"<|endoftext|> {words[3]}\n"] * 5


TEXTS = corpus()
LEARNED = {kind: learn(kind, TEXTS + list(TRICKY)) for kind in KINDS}
SMALL = {kind: learn(kind, TEXTS) for kind in KINDS}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=97)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*TRICKY, TEXTS[3]])
def test_text_comes_back_and_never_holds_the_end(kind, text):
    ids = LEARNED[kind].encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert LEARNED[kind].decode(ids) == text
    assert LEARNED[kind].end not in ids and np.all(ids < LEARNED[kind].size)


@pytest.mark.parametrize("kind", ["byte", "bpe:311", "unigram:311"])
@settings(deadline=None)
@given(text=ANY_TEXT)
@example(text=END)
@example(text="\x1c\n\x1c")
def test_any_text_comes_back(kind, text):
    ids = SMALL[kind].encode(text)
    assert SMALL[kind].decode(ids) == text
    assert SMALL[kind].end not in ids


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_byte_ids_are_the_bytes(text):
    assert SMALL["byte"].encode(text).tolist() == list(text.encode())
    assert (SMALL["byte"].size, SMALL["byte"].end) == (257, 256)


def test_a_character_never_seen_becomes_the_replacement_character():
    learned = learn("char", ["abc", "cab b"])
    assert learned.size == 6  # end, unknown, and four seen
    assert learned.decode(learned.encode("a✗b\nc")) == "a\ufffdb\ufffdc"
    assert len(learned.encode("a✗b\nc")) == 5
    assert len(set(learned.encode("ab c\ufffd").tolist())) == 5


def test_learned_from_nothing_each_kind_still_has_an_end():
    for kind in KINDS:
        learned = learn(kind, [])
        assert 0 <= learned.end < learned.size


SPACES = "ab \n\t\r.'s1é\x1c\x85\xa0\u2028\u200b\u0301\u0323ﬁ"
SPACED = {
    (kind, form): learn(kind, ["".join(random.Random(n).choices(SPACES, k=997)) for n in range(31)], normalization=form)
    for kind, form in (
        ("bpe:1499", "none"),
        ("unigram:1499", "none"),
        ("wordpiece:311", "none"),
        ("bpe:1499", "nfc"),
        ("bpe:1499", "nfkd"),
    )
}


@pytest.mark.parametrize("kind", SPACED, ids=" ".join)
@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(SPACES), max_size=61))
@example(text="a\nb\nc\n\nd \n e\r\nf\n  g")
def test_pieces_have_the_ids_of_the_whole(kind, text):
    whole = SPACED[kind].encode(text).tolist()
    size, tokenizer._PIECE = tokenizer._PIECE, 1
    try:
        assert SPACED[kind].encode(text).tolist() == whole
    finally:
        tokenizer._PIECE = size


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_and_have_the_ids_of_the_whole(kind):
    text = "".join(TEXTS * 13)
    assert len(text) > 2 * tokenizer._PIECE and len(list(tokenizer._pieces(text))) > 1
    learned = SMALL[kind]
    inner = tokenizers.Tokenizer.from_str(learned._inner.to_str())
    inner.encode_special_tokens = True
    whole = inner.encode(text, add_special_tokens=False).ids
    assert learned.encode(text).tolist() == whole
    assert "".join(tokenizer._pieces(text)) == text


def test_a_long_text_without_a_place_to_cut_stays_whole():
    text = "ab " * 50_000
    assert list(tokenizer._pieces(text)) == [text]


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts_at_once_are_as_one_by_one(kind):
    texts = [*TEXTS[:7], "", *TRICKY]
    together = list(SMALL[kind].encode_all(texts))
    assert len(together) == len(texts)
    for ids, text in zip(together, texts, strict=True):
        np.testing.assert_array_equal(ids, SMALL[kind].encode(text))


def test_bpe_is_the_librarys_own():
    theirs = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    theirs.train_from_iterator(TEXTS, vocab_size=311, min_frequency=0, show_progress=False, special_tokens=[END])
    theirs._tokenizer.encode_special_tokens = True
    for text in [*TEXTS[:11], *TRICKY, "words never seen before"]:
        assert SMALL["bpe:311"].encode(text).tolist() == theirs.encode(text).ids
    assert SMALL["bpe:311"].size == theirs.get_vocab_size() == 311
    assert len(SMALL["bpe:311"].encode(TEXTS[0])) < len(TEXTS[0].encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_loaded_equal(kind, tmp_path):
    saved = SMALL[kind]
    saved.save(tmp_path / "tokenizer")
    loaded = tokenizer.load(tmp_path / "tokenizer")
    assert (loaded.kind, loaded.size, loaded.end) == (kind, saved.size, saved.end)
    for text in [*TRICKY, TEXTS[0]]:
        assert loaded.encode(text).tolist() == saved.encode(text).tolist()
    assert loaded.decode(range(loaded.size)) == saved.decode(range(saved.size))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"tokenizer\.json"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_is_deterministic(kind):
    assert {learn(kind, TEXTS)._inner.to_str() for _ in range(3)} == {SMALL[kind]._inner.to_str()}


def test_learning_does_not_depend_on_hashing_or_threads():
    program = """if True:
        import hashlib, random
        from types import SimpleNamespace
        from lm.text.learn import learn
        texts = ["".join(random.Random(n).choices("abcdeé .", k=997)) for n in range(13)]
        for kind in ("char", "bpe:311", "unigram:311", "wordpiece:311"):
            section = SimpleNamespace(tokenizer=kind, normalization="none", end_token="", mask_token="", sentinels=0)
            print(hashlib.sha256(learn(section, texts)._inner.to_str().encode()).hexdigest())
    """
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            check=True,
        ).stdout
        for seed, parallel in (("3", "true"), ("5", "false"))
    }
    assert len(found) == 1 and found.pop().count(b"\n") == 4


def test_a_token_can_be_read_by_people():
    learned = SMALL["bpe:311"]
    assert learned.token(learned.end) == END
    assert learned.token(learned.size) == "?"
    assert learned.token(int(learned.encode("a")[0])) == "a"


def test_ends_are_left_out_of_decoded_text():
    learned = SMALL["bpe:311"]
    ids = [learned.end, *learned.encode("é"), learned.end, *learned.encode("b"), learned.end]
    assert learned.decode(ids) == "éb"
    assert learned.decode(learned.encode("✗")[:1]) == "\ufffd"  # half a letter


@pytest.mark.parametrize("kind", [*KINDS, "wordpiece:311"])
def test_a_text_goes_on_from_the_ids_before(kind):
    learned = learn(kind, TEXTS)
    ids = [learned.end, *learned.encode("abc de. ead bbc"), learned.end]
    for cut in range(len(ids)):
        assert learned.decode(ids[:cut]) + learned.decode(ids[cut:], ids[:cut]) == learned.decode(ids)


def test_marked_texts_have_special_tokens_where_they_are_spelled():
    """The mask token and the sentinels, no other; what is between them is text."""
    marking = learn("byte", [], mask_token="[MASK]", sentinels=12)
    specials = marking.specials
    ids = marking.marked("a[MASK]<extra_id_11>b<extra_id_1>1<extra_id_12>")
    rest = marking.encode("<extra_id_12>").tolist()
    assert ids == [97, specials.mask, specials.sentinels[11], 98, specials.sentinels[1], 49, *rest]
    assert len(rest) == 13 and marking.marked("<|endoftext|>") == marking.encode("<|endoftext|>").tolist()
    plain = learn("byte", [])
    assert plain.marked("[MASK]") == plain.encode("[MASK]").tolist() and plain.marked("") == []


def test_frames_are_the_tokenizers_or_ends_of_text(tmp_path):
    plain = learn("byte", [])
    assert plain.framed([1, 2]).tolist() == [plain.end, 1, 2, plain.end]
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}, "[UNK]"))
    words.add_special_tokens(["[CLS]", "[SEP]"])
    words.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)]
    )
    words.save(str(tmp_path / "words.json"))
    framed = learn(f"file:{tmp_path}/words.json", [])
    assert framed.framed([0, 3]).tolist() == [1, 0, 3, 2] and framed.encode("a").tolist() == [0]


@pytest.mark.parametrize(("before", "opening"), [("", ()), ("<s> ", (1,)), ("<s> <s> ", (1, 1))])
def test_a_file_says_what_opens_a_text(before, opening):
    inner = tokenizers.Tokenizer(models.WordLevel({"</s>": 0, "<s>": 1, "a": 2}, unk_token="a"))
    inner.add_special_tokens(["</s>", "<s>"])
    ends = [("<s>", 1), ("</s>", 0)]
    inner.post_processor = processors.TemplateProcessing(f"{before}$A </s>", special_tokens=ends)
    found = tokenizer.Tokenizer(inner, "place", "</s>")
    assert found.opening == opening and found.encode("a").tolist() == [2]
