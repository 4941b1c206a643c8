"""The data section: its fields, what a mixture comes to, which mixtures are refused."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from lm.config.field import A_FOLDER, A_NAME, EITHER, FREE, Field, at_least, one_of, pairs, spelled, split, within
from lm.refusal import Refusal

LONGEST_CYCLE = 1_000_000  # samples after which the shares of a mixture must have repeated: six digits of each

FIELDS = {
    "data.source": Field(
        "embedded:code",
        "text to learn from",
        spelled(
            r"embedded(:(prose|code))?|files:.+",
            **{
                "embedded": "Python's own standard library, read in place; or a half of it:",
                "embedded:prose": "its docstrings, comments and help topics",
                "embedded:code": "its source code",
                "files:GLOB": "a record per .txt, per line of a .jsonl; .gz of both",
            },
        ),
    ),
    "data.mixture": Field(
        (),
        "several sources, instead of data.source, and what share of the samples each gives; 0: only held-out text",
        pairs("SOURCE"),
        element=str,
    ),
    "data.text_field": Field("text", "the field of a .jsonl line that holds its text", A_NAME),
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
        "what text is cut into; learned from the training split",
        spelled(
            r"byte|char|bpe:(25[89]|2[6-9]\d|[3-9]\d\d|[1-9]\d{3,6})",
            "byte, char or bpe:SIZE with SIZE of at least 258",
            **{
                "byte": "the bytes of UTF-8",
                "char": "the characters of the training split",
                "bpe:SIZE": "byte pairs, merged by frequency up to SIZE tokens (Sennrich et al. 2016), as GPT-2's",
            },
        ),
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
    "data.store": Field("~/.cache/lm/store", "folder of the token stores", A_FOLDER, FREE),
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


def check(flat: Mapping[str, Any]) -> None:
    """Refuse a mixture that has no meaning, or no short cycle."""
    mixture, rule = flat["data.mixture"], FIELDS["data.source"].rule
    names = [name for name, _ in split(mixture)]
    for name in names:
        if not rule.holds(name):
            raise Refusal(f"data.mixture names {name!r}: a source must be {rule.words}.")
        if names.count(name) > 1:
            raise Refusal(f"data.mixture names {name!r} twice: give it one number.")
    if mixture and not any(number for _, number in split(mixture)):
        raise Refusal(f"data.mixture is {mixture}: one of its numbers must be above 0.")
    if (cycle := sum(parts(flat["data.source"], mixture).values())) > LONGEST_CYCLE:
        raise Refusal(
            f"data.mixture is {mixture}: its shares come out even only after {cycle:,} samples; "
            f"round its numbers so that it is at most {LONGEST_CYCLE:,}."
        )
