"""The data section: its fields, what is derived, what a mixture comes to, which sources and mixtures are refused."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from lm.config.field import (
    A_FOLDER,
    A_NAME,
    EITHER,
    FREE,
    Field,
    at_least,
    one_of,
    pairs,
    spelled,
    split,
    within,
)
from lm.refusal import Refusal

LONGEST_CYCLE = 1_000_000  # samples after which the shares of a mixture must have repeated: six digits of each
PAIRED = ("seq2seq", "classify")  # objectives that learn from pairs, an input and its target
_PAIRS, _TEXTS = ("embedded:summaries", "embedded:kinds"), ("embedded", "embedded:prose", "embedded:code")
LEARNED = ("byte", "char", "bpe", "unigram", "wordpiece")  # tokenizers whose vocabulary is made here, not of a file
_SIZE = r"(25[89]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,6})"

FIELDS = {
    "data.source": Field(
        "embedded:code",
        "text to learn from",
        spelled(
            r"embedded(:(prose|code|summaries|kinds))?|files:.+|tfds:\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?",
            **{
                "embedded": "Python's own standard library, read in place: both of the next two",
                "embedded:prose": "its docstrings, comments and help topics",
                "embedded:code": "its source code",
                "embedded:summaries": "pairs: what a docstring of it says at length, and its first line",
                "embedded:kinds": "pairs: a passage of it, and whether it is code, docstring or comment",
                "files:GLOB": "a record per .txt, per line of a .jsonl or .tsv, .gz of them, per row of a .parquet",
                "tfds:NAME[/CONFIG][:VERSION]": "a set of TensorFlow Datasets, prepared as array_record in data.folder",
            },
        ),
    ),
    "data.mixture": Field(
        (),
        "several sources, instead of data.source, and what share of the samples each gives; 0: only held-out text",
        pairs("SOURCE"),
        element=str,
    ),
    "data.unit": Field(
        None,
        "what a record is; follows from objective.name",
        one_of(text="a text", pair="a pair of texts, an input and its target, which may be a class"),
        kind=str,
    ),
    "data.text_field": Field(
        "text",
        "the field of a .jsonl line, column of a .tsv or .parquet, feature of a tfds: set that holds a record's text; "
        "of a pair, its input",
        A_NAME,
    ),
    "data.target_field": Field("target", "likewise, the field that holds a pair's target", A_NAME),
    "data.folder": Field("~/tensorflow_datasets", "folder of the prepared sets of tfds:", A_FOLDER, FREE),
    "data.normalization": Field(
        "none",
        "form of Unicode that text is brought to, prompts too (Unicode Standard Annex 15)",
        one_of(
            none="as it is",
            nfc="characters composed",
            nfd="characters decomposed",
            nfkc="composed, and letters that are only written differently made one: ﬁ becomes fi",
            nfkd="decomposed, likewise",
        ),
    ),
    "data.tokenizer": Field(
        "bpe:4096",
        "what text is cut into; learned from the training split, or read from a file",
        spelled(
            rf"byte|char|place|(bpe|unigram|wordpiece):{_SIZE}|(file|sentencepiece):[^\n]+",
            "byte, char, bpe:SIZE, unigram:SIZE or wordpiece:SIZE with SIZE of at least 258, "
            "file:PATH, sentencepiece:PATH or place",
            **{
                "byte": "the bytes of UTF-8",
                "char": "the characters of the training split",
                "bpe:SIZE": "byte pairs, merged by frequency up to SIZE tokens (Sennrich et al. 2016), as GPT-2's",
                "unigram:SIZE": "the likeliest of all ways to cut bytes into SIZE tokens (Kudo 2018)",
                "wordpiece:SIZE": "parts of words as BERT's (Schuster and Nakajima 2012); loses white space and "
                "what it has not seen",
                "file:PATH": "a tokenizer.json of the tokenizers library",
                "sentencepiece:PATH": "a .model of SentencePiece, unigram or bpe",
                "place": "that of init.from_place, which every run that starts there has without being told",
            },
        ),
    ),
    "data.end_token": Field(
        "",
        "spelling of the end-of-text token; empty: <|endoftext|>, or what a tokenizer's file has in its place",
        spelled(r"[^\n]*", "text of one line"),
    ),
    "data.mask_token": Field(
        None,
        "spelling of the mask token, behind the SIZE tokens of one that is learned; empty: of a file [MASK] or <mask>, "
        "else none; unset: [MASK] where the objective needs it and the tokenizer is learned",
        spelled(r"[^\n]*", "text of one line"),
        kind=str,
    ),
    "data.sentinels": Field(
        None,
        "sentinel tokens <extra_id_0>, <extra_id_1> …, behind the SIZE tokens of one that is learned; unset: 100 where "
        "the objective needs them and the tokenizer is learned",
        at_least(0),
        kind=int,
    ),
    "data.batch_size": Field(16, "sequences in a step, over all devices", at_least(1)),
    "data.valid_fraction": Field(0.05, "share of the text held out for validation", within(0.0001, 0.5)),
    "data.packing": Field(
        "split",
        "how records fill windows",
        one_of(
            split="end to end, cut where a window ends",
            first_fit="whole, each in the first window that has room; only what is longer than a window is cut",
        ),
    ),
    "data.cross_records": Field(False, "let attention look into the records before in the same window", EITHER),
    "data.store": Field(
        "~/.cache/lm/store", "folder of the token stores, of a disk or gs://BUCKET/FOLDER", A_FOLDER, FREE
    ),
}


def parts(source: str, mixture: tuple[str, ...]) -> dict[str, int]:
    """Return each source of data.mixture, or else the one of data.source, with its samples in a cycle, exactly.

    Example: `parts("", ("a=0.5", "b=0.75")) == {"a": 2, "b": 3}`.
    """
    shares = {name: Fraction(str(number)) for name, number in split(mixture)} or {source: Fraction(1)}
    unit = Fraction(
        math.gcd(*(share.numerator for share in shares.values())),
        math.lcm(*(share.denominator for share in shares.values())),
    )
    return {name: int(share / unit) for name, share in shares.items()}


def fill(flat: dict[str, Any]) -> None:
    """Settle what a record is."""
    name = flat["objective.name"]
    unit = "pair" if name in PAIRED else "text"
    if flat["data.unit"] not in (None, unit):
        raise Refusal(f"data.unit is {flat['data.unit']!r}: objective.name {name!r} makes it {unit!r}; leave it unset.")
    flat["data.unit"] = unit


def check(flat: Mapping[str, Any]) -> None:
    """Refuse sources without the objective's unit, and a mixture that has no meaning, or no short cycle."""
    mixture, rule = flat["data.mixture"], FIELDS["data.source"].rule
    names = [name for name, _ in split(mixture)]
    for name in names:
        if not rule.holds(name):
            raise Refusal(f"data.mixture names {name!r}: a source must be {rule.words}.")
        if names.count(name) > 1:
            raise Refusal(f"data.mixture names {name!r} twice: give it one number.")
    if mixture and flat["data.source"] != FIELDS["data.source"].default:
        raise Refusal(
            f"data.source is {flat['data.source']!r} beside data.mixture: only one of them is read; "
            f"leave data.source at {FIELDS['data.source'].default!r}."
        )
    if mixture and not any(number for _, number in split(mixture)):
        raise Refusal(f"data.mixture is {mixture}: one of its numbers must be above 0.")
    if (cycle := sum(parts(flat["data.source"], mixture).values())) > LONGEST_CYCLE:
        raise Refusal(
            f"data.mixture is {mixture}: its shares come out even only after {cycle:,} samples; "
            f"round its numbers so that it is at most {LONGEST_CYCLE:,}."
        )
    _check_unit(flat)


def _check_unit(flat: Mapping[str, Any]) -> None:
    name = flat["objective.name"]
    for source in parts(flat["data.source"], flat["data.mixture"]):
        if flat["data.unit"] == "pair" and source in _TEXTS:
            raise Refusal(
                f"data.source {source!r} holds no pairs, which objective.name {name!r} learns from: "
                f"take one of {', '.join(_PAIRS)}, files: or tfds:."
            )
        if flat["data.unit"] == "text" and source in _PAIRS:
            raise Refusal(
                f"data.source {source!r} holds pairs, and objective.name {name!r} learns from texts: "
                f"take another source, or one of the objectives {', '.join(PAIRED)}."
            )
    if flat["data.unit"] == "pair" and flat["data.text_field"] == flat["data.target_field"]:
        raise Refusal(f"data.target_field is {flat['data.target_field']!r}: data.text_field is the same; name another.")
