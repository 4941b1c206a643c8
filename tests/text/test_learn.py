"""A tokenizer's file is used as it stands, but for what would lose text; each has an end that no text spells."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lm.config import defaults
from lm.refusal import Refusal
from lm.text import learn
from lm.text.tokenizer import END, load

TEXTS = [f"the fox number {number} jumps over the dog, naïve 日本 {number * 7919}\n" for number in range(97)]
LONG = "".join(TEXTS * 40)


def section(kind, **fields):
    config = defaults("data")
    with config.unlocked():
        config.update({"tokenizer": kind, "mask_token": "", "sentinels": 0} | fields)
    return config


def learned(kind, texts=TEXTS, **fields):
    return learn.learn(section(kind, **fields), texts)


def byte_pairs(special=(END,), **options):
    """Return a byte-level BPE of the library's own."""
    inner = tokenizers.Tokenizer(models.BPE(**options))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=311, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    return inner


def unigram(special=("</s>",), **parts):
    """Return a Unigram model as T5's and XLM-R's: special tokens stand in its vocabulary, at the best score."""
    letters = sorted({letter for text in TEXTS for letter in text if letter != " "} | set("<>/s▁"))
    pieces = [("<unk>", 0.0), *((name, 0.0) for name in special), *((letter, -3.0) for letter in letters)]
    inner = tokenizers.Tokenizer(models.Unigram([*pieces, ("▁the", -2.0), ("</", -4.0)], unk_id=0))
    inner.pre_tokenizer = parts.get("pre_tokenizer", pre_tokenizers.Metaspace())
    inner.normalizer = parts.get("normalizer", normalizers.NFKC())
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens(["<unk>", *special])
    return inner


def word_pieces():
    """Return a WordPiece as BERT's, with its frame of special tokens."""
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=211, special_tokens=special))
    ends = [(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return inner


FILES = {
    "byte pairs": (byte_pairs, END),
    "byte pairs, Llama 3's names": (lambda: byte_pairs(["<|begin_of_text|>", "<|end_of_text|>"]), "<|end_of_text|>"),
    "unigram": (unigram, "</s>"),
    "word pieces": (word_pieces, "[SEP]"),
}


@pytest.fixture
def saved(tmp_path):
    """Return a function: a tokenizer of the library → how data.tokenizer names its file."""

    def save(inner):
        path = tmp_path / "a tokenizer.json"
        path.write_text(inner.to_str())
        return f"file:{path}"

    return save


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_ids_of_its_library_and_the_end_of_its_kind(saved, tmp_path, name):
    make, end = FILES[name]
    theirs = make()
    ours = learned(saved(theirs))
    for text in (*TEXTS[:7], "", "  two  spaces ", "never seen: ✗ 🙂", LONG):
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids
    assert ours.end == theirs.token_to_id(end) and ours.token(ours.end) == end
    assert ours.size == theirs.get_vocab_size()
    ours.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert (loaded.kind, loaded.size, loaded.end) == (ours.kind, ours.size, ours.end)
    assert loaded.encode(LONG).tolist() == ours.encode(LONG).tolist()
    assert loaded.token(loaded.end) == end


@pytest.mark.parametrize("name", FILES)
def test_a_text_that_spells_a_special_token_does_not_get_it(saved, name):
    theirs = FILES[name][0]()
    ours = learned(saved(theirs))
    special = {index: token.content for index, token in theirs.get_added_tokens_decoder().items()}
    for spelled in special.values():
        for text in (spelled, f"the {spelled} dog", f"a{spelled}{spelled}b"):
            unknown = {theirs.token_to_id(name) for name in ("<unk>", "[UNK]")}
            assert not (set(special) - unknown) & set(ours.encode(text).tolist()), text
    if name == "unigram":  # the model itself would
        theirs.encode_special_tokens = True
        assert theirs.encode("</s>").ids == [theirs.token_to_id("▁"), theirs.token_to_id("</s>")]
        assert ours.decode(ours.encode("a</s>b")) == "a</s>b"


@pytest.mark.parametrize("split", [pre_tokenizers.Metaspace(), pre_tokenizers.Metaspace(split=False), None])
@pytest.mark.parametrize("normalizer", [None, normalizers.Sequence([normalizers.Prepend("▁")])])
def test_special_tokens_are_not_spelled_however_words_are_cut(saved, split, normalizer):
    ours = learned(saved(unigram(["</s>", "<pad>"], pre_tokenizer=split, normalizer=normalizer)))
    for text in ("</s>", "a</s>b<pad></s>", "the</s>the", "</s></s>"):
        assert not {1, 2} & set(ours.encode(text).tolist())


def test_what_a_file_says_of_length_padding_and_chance_does_not_hold(saved):
    theirs = byte_pairs(dropout=0.5)
    plain = byte_pairs()
    theirs.enable_truncation(7)
    theirs.enable_padding(length=5000, pad_token=END)
    ours = learned(saved(theirs))
    for text in (*TEXTS[:7], "", LONG):
        assert ours.encode(text).tolist() == plain.encode(text).ids


def test_ids_may_have_holes(saved):
    facts = json.loads(byte_pairs().to_str())
    facts["model"]["vocab"]["d"] = 997
    ours = learned(saved(tokenizers.Tokenizer.from_str(json.dumps(facts))))
    assert ours.size == 998 and ours.encode("d").tolist() == [997]
    assert ours.decode(ours.encode("a dog")) == "a dog"


def test_tokens_added_to_a_file_that_are_not_special_are_found_in_texts(saved):
    theirs = byte_pairs()
    theirs.add_tokens([AddedToken("fox number", normalized=False)])
    ours = learned(saved(theirs))
    assert ours.size == 312 and 311 in ours.encode(TEXTS[0])
    assert ours.decode(ours.encode(TEXTS[0])) == TEXTS[0]


def refused(words, kind, **fields):
    with pytest.raises(Refusal) as refusal:
        learned(kind, **fields)
    sentence = str(refusal.value)
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


def test_a_file_without_a_known_end_is_refused_until_one_is_named(saved):
    kind = saved(byte_pairs(["<s>", "<|im_start|>"]))
    sentence = refused("data.end_token is ''", kind)
    assert "'<s>', '<|im_start|>'" in sentence and kind in sentence
    assert learned(kind, end_token="<|im_start|>").end == 1
    refused("data.end_token is 'the'", kind, end_token="the")  # a word like others
    refused("data.end_token is '</s>'", kind, end_token="</s>")
    assert "which has none." in refused("data.end_token is ''", saved(byte_pairs([])))


@pytest.mark.parametrize("first, second", [("</s>", "[SEP]"), (END, "</s>"), ("<eos>", "<|im_end|>")])
def test_of_several_known_ends_the_first_of_the_list_is_taken(saved, first, second):
    assert learned(saved(byte_pairs([second, first]))).end == 1
    assert learned(saved(byte_pairs([second, first])), end_token=second).end == 0


PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


@pytest.mark.parametrize(
    "changes",
    [
        "",
        "{",
        "[]",
        "{}",
        "\ufeff{}",
        {"model": {}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
        {"model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}},
        {"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": {"a": 0}}},
        {"normalizer": PRECOMPILED},
    ],
    ids=lambda changes: str(changes)[:40],
)  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, changes):
    path = tmp_path / "tokenizer.json"
    if isinstance(changes, dict):
        changes = json.dumps(json.loads(byte_pairs().to_str()) | changes)
    path.write_text(changes)
    refused(f"data.tokenizer: {path} is no tokenizer.json (", f"file:{path}")


def test_a_file_that_is_not_there_is_refused_by_its_key_too(tmp_path):
    for kind in ("file", "sentencepiece"):
        refused("cannot be read (No such file or directory)", f"{kind}:{tmp_path}/a.json")
        with pytest.raises(Refusal, match=r"a\.json cannot be read"):
            learn.key(section(f"{kind}:{tmp_path}/a.json"))
    refused("cannot be read (Is a directory)", f"file:{tmp_path}")


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:311", "unigram:311", "wordpiece:311"])
def test_the_end_of_a_learned_tokenizer_may_have_another_name(kind):
    ours, usual = learned(kind, end_token="<end>"), learned(kind)
    assert ours.end == usual.end and ours.size == usual.size
    assert ours.token(ours.end) == "<end>"
    for text in (*TEXTS[:3], "<end>", "a<end>b"):
        assert ours.end not in ours.encode(text)
        np.testing.assert_array_equal(ours.encode(text), usual.encode(text))


@pytest.mark.parametrize("kind", ["unigram:311", "wordpiece:311"])
def test_an_end_that_reads_like_a_word_is_still_not_spelled(kind):
    ours = learned(kind, end_token="fox")
    assert ours.end not in ours.encode("a fox, foxes and fox")


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:311", "unigram:311", "wordpiece:311"])
def test_an_end_of_one_letter_is_refused(kind):
    refused("makes a special token of the text 'x'", kind, end_token="x")


def test_only_what_learns_from_text_reads_it():
    def forbidden():
        raise AssertionError("the text was read")
        yield

    kinds = {kind: kind + ":311" * (kind in ("bpe", "unigram", "wordpiece")) for kind in learn.KINDS}
    assert {kind for kind, spelled in kinds.items() if not learn.reads_text(spelled)} == {
        "byte",
        "file",
        "sentencepiece",
        "place",
    }
    learn.learn(section("byte"), forbidden())


def test_the_key_changes_with_each_thing_that_the_tokenizer_depends_on(saved):
    keys = [
        learn.key(section("bpe:311")),
        learn.key(section("bpe:312")),
        learn.key(section("bpe:311", normalization="nfc")),
        learn.key(section("bpe:311", end_token="</s>")),
        learn.key(section(saved(byte_pairs()))),
        learn.key(section(saved(byte_pairs([END, "</s>"])))),
    ]
    assert len(set(keys)) == len(keys)
    assert learn.key(section("bpe:311", batch_size=3)) == keys[0]
    assert learn.key(section(saved(byte_pairs([END, "</s>"])))) == keys[-1]


def test_without_sentencepiece_the_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    refused("learned by SentencePiece: pip install 'lm[sentencepiece]'", "unigram:311")


def test_the_section_may_be_anything_with_its_fields():
    plain = SimpleNamespace(tokenizer="byte", normalization="none", end_token="", mask_token="", sentinels=0)
    assert learn.learn(plain, []).size == 257
