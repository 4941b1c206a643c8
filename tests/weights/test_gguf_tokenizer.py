"""Tokenizers of GGUF files against the libraries whose they are, and there and back."""

import io
import json
import re

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from lm.refusal import Refusal
from lm.text.published import made
from lm.weights import gguf_tokenizer
from lm.weights.gguf_tokenizer_write import write

TEXTS = (
    "It's the 12th of May 2026, 3.14159!",
    "  two  spaces\t\ttabs\n\n lines \r\n end ",
    "naïve ½ ² Ünïcödé 日本語 😀 don't I'LL",
    "",
)
# The patterns of tokenizer.json files as Meta, Qwen, Mistral and OpenAI publish them, parted where they say "or".
_CONTRACTED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CAPITAL = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_SMALL = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_WORD, _SIGNS, _PATHS = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_BLANKS = (r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+")
PATTERNS = {
    "llama-bpe": "|".join((_CONTRACTED, _WORD, r"\p{N}{1,3}", _SIGNS, *_BLANKS)),
    "qwen2": "|".join((_CONTRACTED, _WORD, r"\p{N}", _SIGNS, *_BLANKS)),
    "tekken": "|".join((_CAPITAL, _SMALL, r"\p{N}", _PATHS, *_BLANKS)),
    "gpt-4o": "|".join((f"{_CAPITAL}{_CONTRACTED}?", f"{_SMALL}{_CONTRACTED}?", r"\p{N}{1,3}", _PATHS, *_BLANKS)),
}


def said(**entries):
    return {f"tokenizer.ggml.{key}": value for key, value in entries.items()}


def opened(rows=400, **entries):
    found = gguf_tokenizer.read("a.gguf", said(**entries), rows)
    return made(found.files, found.generation, "a.gguf")


def byte_pairs(first, normalizer=None, whole=False):
    """Return a byte-level tokenizer of every byte and some merges, cut by a step."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("i", "n"), ("Ġ", "t"), ("1", "2"), ("Ġ", "Ġ"), ("'", "t"), ("M", "a"), ("Ma", "y"), ("Ġ", "May")]
    tokens = ["<|end|>", *letters, *("".join(pair) for pair in merges)]
    model = models.BPE({token: index for index, token in enumerate(tokens)}, merges, ignore_merges=whole)
    inner = tokenizers.Tokenizer(model)
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([first, last]) if first else pre_tokenizers.ByteLevel(False)
    inner.normalizer = normalizer
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|end|>"])
    return inner, tokens, [" ".join(pair) for pair in merges]


CUTS = {
    "gpt-2": (None, None, False),
    **{
        name: (
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            normalizers.NFC() if name == "qwen2" else None,
            name in ("llama-bpe", "tekken"),
        )
        for name, pattern in PATTERNS.items()
    },
}


@pytest.mark.parametrize("name", CUTS)
def test_byte_pairs_are_cut_as_their_name_says(name):
    inner, tokens, merges = byte_pairs(*CUTS[name])
    types = np.array([3] + [1] * (len(tokens) - 1), np.int32)
    ours = opened(model="gpt2", pre=name, tokens=tokens, token_type=types, merges=merges, eos_token_id=0)
    inner.encode_special_tokens = True
    for text in (*TEXTS, "May 12 12Mayin", "<|end|> e\u0301"):
        assert ours.encode(text).tolist() == inner.encode(text).ids, text
    assert ours.end == 0 and ours.decode(ours.encode(TEXTS[1])) == TEXTS[1]
    entries = write(made({"tokenizer.json": inner.to_str()}, {"eos_token_id": 0}, "b"), {}, len(tokens))
    assert entries["tokenizer.ggml.pre"] == name
    assert entries["tokenizer.ggml.tokens"] == tokens and entries["tokenizer.ggml.merges"] == merges


# As llama.cpp's llama-vocab.cpp takes them; 0 is both ends.
@pytest.mark.parametrize(
    "name, flags, frame",
    [
        ("gpt-2", {}, ((), ())),
        ("gpt-2", {"add_bos_token": True}, ((0,), ())),
        ("gpt-2", {"add_bos_token": True, "add_eos_token": True}, ((0,), (0,))),
        ("gpt-2", {"add_eos_token": True}, ((), (0,))),
        ("qwen2", {}, ((), ())),
        ("llama-bpe", {}, ((0,), ())),
        ("llama-bpe", {"add_bos_token": False}, ((), ())),
        ("tekken", {}, ((0,), ())),
    ],
)
def test_a_text_has_the_frame_that_a_file_says(name, flags, frame):
    _, tokens, merges = byte_pairs(*CUTS[name])
    entries = {"model": "gpt2", "pre": name, "tokens": tokens, "merges": merges, "eos_token_id": 0, "bos_token_id": 0}
    ours = opened(**entries, **flags)
    assert ours.frame == frame and ours.opening == frame[0]
    published = tokenizers.Tokenizer.from_str(ours.published["tokenizer.json"])
    assert published.encode("in").ids == [*frame[0], tokens.index("in"), *frame[1]]
    written = write(ours, {"bos_token_id": 0}, len(tokens))
    assert [written[f"tokenizer.ggml.add_{end}_token"] for end in ("bos", "eos")] == list(map(bool, frame))
    again = {key.removeprefix("tokenizer.ggml."): value for key, value in written.items()}
    assert opened(**again | {"token_type": np.array(again["token_type"])}).frame == frame


def test_a_frame_that_is_no_flag_is_refused():
    _, tokens, merges = byte_pairs(None)
    with pytest.raises(Refusal, match="add_bos_token or add_eos_token is neither true nor false"):
        opened(model="gpt2", pre="gpt-2", tokens=tokens, merges=merges, eos_token_id=0, add_bos_token=1)


@pytest.fixture(scope="module")
def spm():
    """Return SentencePiece's processor of pairs, with bytes for what it has not seen."""
    library = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["It is the 12th of May, and the cat is in the hat again"] * 3 + list(TEXTS[:2])),
        model_writer=written,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<think>"],
        num_threads=1,
        minloglevel=2,
    )
    return library.SentencePieceProcessor(model_proto=written.getvalue())


def of_pieces(spm):
    """Return the entries that llama.cpp's converter makes of a SentencePiece model."""
    kinds = {"is_unknown": 2, "is_control": 3, "is_unused": 5, "is_byte": 6}
    count = spm.get_piece_size()
    types = [next((kind for name, kind in kinds.items() if getattr(spm, name)(i)), 1) for i in range(count)]
    types[spm.piece_to_id("<think>")] = 4
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [spm.id_to_piece(i) for i in range(count)],
        "scores": np.array([spm.get_score(i) for i in range(count)], np.float32),
        "token_type": np.array(types, np.int32),
        "eos_token_id": spm.eos_id(),
        "bos_token_id": spm.bos_id(),
        "unknown_token_id": spm.unk_id(),
        "add_space_prefix": True,
    }


def test_pieces_are_sentencepieces(spm):
    ours = opened(**of_pieces(spm))
    for text in (*TEXTS, "the cat in the hat <think> again", "a</s>b"):
        assert ours.encode(text).tolist() == spm.encode(text), text
    assert ours.end == spm.eos_id() and ours.opening == (spm.bos_id(),)
    assert opened(**of_pieces(spm), add_bos_token=False).opening == ()


def test_pieces_there_and_back(spm):
    entries = of_pieces(spm)
    ours = opened(**entries)
    written = write(ours, {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0}, len(entries["tokens"]) + 3)
    back = {key.removeprefix("tokenizer.ggml."): value for key, value in written.items()}
    assert back["tokens"] == [*entries["tokens"], *(f"[PAD{len(entries['tokens']) + i}]" for i in range(3))]
    assert back["token_type"] == [*entries["token_type"].tolist(), 5, 5, 5]
    arrays = {key: np.array(back[key]) for key in ("scores", "token_type")}
    again = opened(**(back | arrays))
    for text in TEXTS:
        assert again.encode(text).tolist() == ours.encode(text).tolist()
    assert back["add_space_prefix"] is True and back["bos_token_id"] == 1


@pytest.mark.parametrize("is_apart", [False, True])
def test_what_is_said_of_chats_is_kept(published, tmp_path, monkeypatch, is_apart):
    """The template stands in tokenizer_config.json, or in a file of its own."""
    from lm.weights import gguf

    config = {"chat_template": "{{ messages }}", "add_bos_token": False, "bos_token": "<|start|>"}
    model = published("llama")
    said = config | ({"chat_template": "{{ else }}"} if is_apart else {})
    apart = {"chat_template.jinja": config["chat_template"]} if is_apart else {}
    monkeypatch.setattr(model.tokenizer, "published", {"tokenizer_config.json": json.dumps(said), **apart})
    gguf.write(tmp_path / "a.gguf", model, "F32")
    back = json.loads(gguf.read(tmp_path / "a.gguf").tokenizer.published["tokenizer_config.json"])
    assert config.items() <= back.items()


def unigram():
    inner = tokenizers.Tokenizer(models.Unigram([("<|end|>", 0.0), ("a", -1.0)], 0, False))
    inner.add_special_tokens(["<|end|>"])
    return inner


@pytest.mark.parametrize(
    "inner, words",
    [
        (unigram(), "it is of the kind Unigram"),
        (byte_pairs(pre_tokenizers.Whitespace())[0], "the pattern by which it cuts text has no name there"),
        (byte_pairs(None, normalizers.Lowercase())[0], "the pattern by which it cuts text has no name there"),
        (byte_pairs(CUTS["llama-bpe"][0], normalizers.NFC(), True)[0], "the pattern by which it cuts text"),
    ],
    ids=["unigram", "words", "case", "form"],
)
def test_what_gguf_has_no_word_for_is_refused(inner, words):
    tokenizer = made({"tokenizer.json": inner.to_str()}, {"eos_token_id": 0}, "a")
    with pytest.raises(Refusal, match=re.escape(f"a GGUF file cannot hold the tokenizer 'place': {words}")):
        write(tokenizer, {}, 400)


def test_more_tokens_than_rows_are_refused():
    tokenizer = made({"tokenizer.json": byte_pairs(None)[0].to_str()}, {"eos_token_id": 0}, "a")
    with pytest.raises(Refusal, match=r"265 tokens for 264 rows"):
        write(tokenizer, {}, 264)
