"""Tokenizers beside Transformers' own: those of ours, exported; theirs, opened and exported again."""

import json

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lm.config import defaults
from lm.config.resolve import resolve
from lm.text import learn, published

LEARNED = ["The quick brown fox jumps over the lazy dog. " * 20, "Zwölf Boxkämpfer jagen Viktor 1234567890!\n" * 20]
TEXTS = [
    "The fox jumps.",
    "  two  spaces, a\ttab\nand a line ",
    "Größe, naïve, 東京, 🙂🙃 and <|endoftext|>? no",
    "don't 12345 e̊ ﬁ",
    "",
]
PLAIN = [text.replace("<|endoftext|>", "an end") for text in TEXTS]  # Transformers makes a token of what spells one


def auto(folder):
    """Return what Transformers makes of a folder's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["byte", "char", "bpe:300", "unigram:290", "wordpiece:300"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_ours_gives_the_same_ids_there(kind, family, tmp_path):
    config = defaults()
    config.data.tokenizer, config.train.steps = kind, 1
    ours = learn.learn(resolve(config).data, LEARNED)
    ids = {"bos_token_id": ours.end, "eos_token_id": ours.end}
    published.write(ours, tmp_path, ids)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": ours.size, **ids}))
    theirs = auto(tmp_path)
    for text in PLAIN:
        assert theirs(text)["input_ids"] == ours.encode(text).tolist(), text
        assert theirs.decode(theirs(text)["input_ids"]) == ours.decode(ours.encode(text)), text
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end
    assert len(theirs) == ours.size


def byte_pairs():
    """Return a byte-level tokenizer as Llama 3's: a begin before each text, words by a pattern of its own."""
    inner = tokenizers.Tokenizer(models.BPE(byte_fallback=False))
    pattern = tokenizers.Regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    split = pre_tokenizers.Split(pattern, "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|begin|>", "<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(LEARNED, trainer)
    inner.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return inner, {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}


def word_pieces():
    """Return a tokenizer as BERT's, lower case."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.train_from_iterator(LEARNED, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    inner.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    return inner, names | {"sep_token": "[SEP]", "mask_token": "[MASK]"}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("make", "end"), [(byte_pairs, "<|end|>"), (word_pieces, "[SEP]")])
def test_theirs_stays_the_same(make, end, tmp_path):
    inner, names = make()
    one, two = tmp_path / "one", tmp_path / "two"
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(one)
    before = auto(one)
    ids = {} if before.eos_token_id is None else {"eos_token_id": before.eos_token_id}
    ours = published.read(one, ids)
    assert ours.end == before.convert_tokens_to_ids(end)
    for text in PLAIN:
        assert before(text, add_special_tokens=False)["input_ids"] == ours.encode(text).tolist(), text
    two.mkdir()
    published.write(ours, two, ids)
    after = auto(two)
    assert after.special_tokens_map == before.special_tokens_map and after.all_special_ids == before.all_special_ids
    for text in TEXTS:
        assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after("a fox", "a dog")["input_ids"] == before("a fox", "a dog")["input_ids"]
