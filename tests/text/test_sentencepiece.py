"""A SentencePiece model cuts texts here as it does in its own library, with its ids, and reads them back alike."""

import io
import random
import unicodedata
from types import SimpleNamespace

import pytest
import sentencepiece as library
from sentencepiece import sentencepiece_model_pb2

from lm.refusal import Refusal
from lm.text import learn, sentencepiece
from lm.text.tokenizer import load

SENTENCES = """
The quick brown fox jumps over the lazy dog, and the dog sleeps on in the warm sun.
Der schnelle braune Fuchs springt über den faulen Hund, während die Katze zuschaut.
Le cœur a ses raisons que la raison ne connaît point; l'été, où es-tu?
Быстрая лиса прыгает через ленивую собаку, а собака спит.
Η γρήγορη αλεπού πηδά πάνω από το τεμπέλικο σκυλί.
素早い茶色の狐が怠け者の犬を飛び越える。犬は眠っている。
敏捷的棕色狐狸跳过了懒狗，狗还在睡觉。
빠른 갈색 여우가 게으른 개를 뛰어넘는다.
الثعلب البني السريع يقفز فوق الكلب الكسول.
def jump(fox, dog=None): return fox + 3.14 * (dog or 0)  # 12345
0 < 1 / 2 > 0
""".strip().split("\n")

TRICKY = [
    "",
    " ",
    "   ",
    " one space before",
    "   three before, two  inside, one after ",
    "naïve café Ünïcödé œuvre",
    "e\u0301 a\u0308 o\u0302",
    "the quick🙂brown👩‍👩‍👧fox 🏽",
    "犬と猫と龍",
    "unknown ✗ ✗✗ ꙮ",
    "ünter",
    "a▁b ▁",
    "１２３ ｆｕｌｌ　ｗｉｄｔｈ",
    "ﬁne ½ ™ …",
    "<s> and </s> and <unk>",
    "a<s>b</s>",
    "<0x41> <0x0A>",
    "tab\tand\u00a0non-breaking",
    "two\nlines\n\nand two",
    "return return  returnreturn",
    *SENTENCES,
]

# name → what the model is trained with, beside the text and a small vocabulary
MODELS = {
    "unigram": {"model_type": "unigram"},
    "unigram of bytes": {"model_type": "unigram", "byte_fallback": True},
    "unigram as it is": {
        "model_type": "unigram",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
    "unigram with symbols": {"user_defined_symbols": ["<sep>", "fox"], "control_symbols": ["<x>"]},
    "bpe": {"model_type": "bpe"},
    "bpe of bytes": {"model_type": "bpe", "byte_fallback": True, "pad_id": 3},
    "bpe as Llama's": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
    },
    "bpe as Gemma's": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["▁▁", "▁▁▁", "\n", "\n\n", "<mask>"],
    },
    "bpe with symbols": {"model_type": "bpe", "user_defined_symbols": ["<sep>", "fox"]},
}  # fmt: skip
SYMBOLS = ["a<sep>b", "<sep> <sep>", "the fox", "a fox, foxes", "foxfox", "<mask>   two\n\n\n<mask>", "<x> a<x>"]


def trained(**options):
    written = io.BytesIO()
    given = {"vocab_size": 701, "minloglevel": 2, "hard_vocab_limit": False, "num_threads": 1} | options
    library.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 3), model_writer=written, **given)
    return written.getvalue()


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """Return a function: name → (the library's own, ours), of a model that is trained once."""
    made = {}

    def make(name):
        if name not in made:
            path = tmp_path_factory.mktemp("model") / "a.model"
            path.write_bytes(trained(**MODELS[name]))
            made[name] = library.SentencePieceProcessor(model_file=str(path)), opened(path)
        return made[name]

    return make


def opened(path, **fields):
    section = {
        "tokenizer": f"sentencepiece:{path}",
        "normalization": "none",
        "end_token": "",
        "mask_token": "",
        "sentinels": 0,
    }
    return learn.learn(SimpleNamespace(**section | fields), [])


@pytest.mark.parametrize("name", MODELS)
def test_ids_and_text_are_the_librarys(both, name):
    theirs, ours = both(name)
    for text in TRICKY + SYMBOLS:
        ids = theirs.encode(text)
        assert ours.encode(text).tolist() == ids, text
        assert ours.decode(ids) == theirs.decode(ids), text
    assert (ours.size, ours.end) == (theirs.vocab_size(), theirs.eos_id())
    assert [ours._inner.id_to_token(index) for index in range(ours.size)] == [
        theirs.id_to_piece(index) for index in range(ours.size)
    ]


@pytest.mark.parametrize("name", MODELS)
def test_many_random_texts_in_nfkc_have_the_librarys_ids(both, name):
    theirs, ours = both(name)
    chance = random.Random(7)
    letters = sorted(set("".join(SENTENCES)))
    pools = [letters, list(" \n\t"), list("foxdgquicktheov "), list("日本語狐の"), [chr(c) for c in range(0xA0, 0x250)]]
    texts = []
    for _ in range(499):
        some = chance.sample(pools, 3)
        text = "".join(chance.choice(chance.choice(some)) for _ in range(chance.randint(1, 41)))
        texts.append(unicodedata.normalize("NFKC", text))
    different = [text for text in texts if ours.encode(text).tolist() != theirs.encode(text)]
    for text in different:  # two cuts that are equally likely
        assert "unigram" in name
        score = lambda ids: sum(theirs.get_score(int(index)) for index in ids)
        assert score(ours.encode(text)) == pytest.approx(score(theirs.encode(text)), abs=1e-4)
    assert len(different) < 5


@pytest.mark.parametrize("name", MODELS)
def test_random_ids_are_read_as_the_library_reads_them(both, name):
    theirs, ours = both(name)
    chance = random.Random(7)
    usual = [i for i in range(theirs.vocab_size()) if not (theirs.is_byte(i) or theirs.is_unknown(i) or i == ours.end)]
    for _ in range(199):
        ids = chance.choices(usual, k=chance.randint(1, 13))
        ids = ids if theirs.id_to_piece(ids[0]) != "▁" else ids[1:]
        assert ours.decode(ids).strip() == theirs.decode(ids).strip()


@pytest.mark.parametrize("name", MODELS)
def test_a_text_goes_on_from_the_ids_before(both, name):
    theirs, ours = both(name)
    ids = theirs.encode("The quick brown fox, the dog")
    for cut in range(len(ids)):
        assert theirs.decode(ids[:cut]) + ours.decode(ids[cut:], ids[:cut]) == theirs.decode(ids)


def test_bytes_stand_for_what_is_unknown_and_come_back(both):
    for name in ("unigram of bytes", "bpe of bytes", "unigram as it is", "bpe as Llama's"):
        _, ours = both(name)
        for text in ("龍", "ꙮ🏽", "x\u0301龍"):
            assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFKC", text)


def test_a_text_that_spells_a_special_token_does_not_get_it(both):
    for name in MODELS:
        theirs, ours = both(name)
        special = {index for index in range(ours.size) if theirs.is_control(index)}
        for index in special:
            spelled = theirs.id_to_piece(index)
            for text in (spelled, f"a{spelled}b", f"the {spelled}{spelled} dog"):
                assert not special & set(ours.encode(text).tolist())


def test_a_saved_model_is_loaded_equal(both, tmp_path):
    _, ours = both("bpe of bytes")
    ours.save(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.kind, loaded.size, loaded.end) == (ours.kind, ours.size, ours.end)
    for text in TRICKY:
        assert loaded.encode(text).tolist() == ours.encode(text).tolist()


def test_compatibility_characters_with_marks_are_as_the_librarys_once_normalised(both, tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(trained(**MODELS["bpe of bytes"]))
    theirs, _ = both("bpe of bytes")
    ours = opened(path, normalization="nfkc")
    for text in ("ﬁ\u0301", "ﾊﾞ", "\u1112\u1161\u11ab", "Ａ\u0308"):
        assert ours.encode(text).tolist() == theirs.encode(unicodedata.normalize("NFKC", text))


def test_the_file_is_read_as_its_own_library_reads_it(both):
    for options in MODELS.values():
        data = trained(**options)
        theirs, ours = sentencepiece_model_pb2.ModelProto.FromString(data), sentencepiece.read(data)
        assert [(piece.text, piece.score, piece.type) for piece in ours.pieces] == [
            (piece.piece, piece.score, piece.type) for piece in theirs.pieces
        ]
        assert ours[1:] == (
            theirs.trainer_spec.model_type,
            theirs.trainer_spec.treat_whitespace_as_suffix,
            theirs.trainer_spec.byte_fallback,
            theirs.trainer_spec.unk_surface,
            theirs.normalizer_spec.precompiled_charsmap,
            theirs.normalizer_spec.add_dummy_prefix,
            theirs.normalizer_spec.remove_extra_whitespaces,
            theirs.normalizer_spec.escape_whitespaces,
            theirs.denormalizer_spec.precompiled_charsmap,
        )


def changed(section, **fields):
    """Return the bytes of a model with fields of a section of it changed."""
    model = sentencepiece_model_pb2.ModelProto.FromString(trained())
    for name, value in fields.items():
        setattr(getattr(model, section) if section != "pieces" else model.pieces[97], name, value)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("trainer_spec", "model_type", 3, "it is neither unigram nor bpe"),
        ("trainer_spec", "model_type", 4, "it is neither unigram nor bpe"),
        ("trainer_spec", "treat_whitespace_as_suffix", True, "it has treat_whitespace_as_suffix"),
        ("normalizer_spec", "escape_whitespaces", False, "it has no escape_whitespaces"),
        ("denormalizer_spec", "precompiled_charsmap", b"map", "it has a denormalizer"),
        ("pieces", "type", 5, "it has unused pieces"),
        ("pieces", "type", 2, "it has not one piece for what is unknown"),
        ("normalizer_spec", "precompiled_charsmap", b"map", ""),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, section, field, value, words):
    path = tmp_path / "a.model"
    path.write_bytes(changed(section, **{field: value}))
    refused(path, "is no SentencePiece model that can be followed (", words)


def refused(path, *words, **fields):
    with pytest.raises(Refusal) as refusal:
        opened(path, **fields)
    sentence = str(refusal.value)
    assert all(part in sentence for part in (*words, str(path))), sentence
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize("cut", [0, 1, 3, 1009, -1])
def test_a_damaged_model_is_refused(tmp_path, cut):
    path = tmp_path / "a.model"
    path.write_bytes(trained()[:cut])
    refused(path)


@pytest.mark.parametrize("data", [b"text", b"{}", b"\x0a\x02\x08\x03", bytes(997), b"\xff" * 97, b"\x0a\x05\x15\x01"])
def test_another_file_is_refused(tmp_path, data):
    path = tmp_path / "a.model"
    path.write_bytes(data)
    refused(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "a.model", "cannot be read (No such file or directory)")


def test_a_model_without_an_end_is_refused_until_one_is_named(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(trained(eos_id=-1))
    refused(path, "data.end_token is ''", "'<unk>', '<s>'")
    assert opened(path, end_token="<s>").end == 1
