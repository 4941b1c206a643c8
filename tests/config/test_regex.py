"""Python's regular expressions, as llguidance matches them."""

import re

import llguidance
import pytest

from lm.config.regex import translated

TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "aab",
    "aaab",
    "abab",
    "A",
    "K",
    "\u212a",
    "7",
    "\u0667",
    "_",
    "é",
    "e\u0301",
    " ",
    "\x1c",
    "\u00a0",
    "\n",
    "a\n",
    "a/b",
    "[",
    "]",
    "a-b",
    "2026-11-22",
    "\U0001f600",
    "\u65e5\u672c",
    "{2}",
    "a{2}",
    "\\",
    "^a$",
    "a#b",
)
PATTERNS = (
    "a",
    "a*b",
    "(ab)+",
    "a{2,3}b",
    "a{,2}b",
    "a+?b",
    "[ab]{2}|",
    r"\d",
    r"\D",
    r"\w",
    r"\W+",
    r"\s",
    r"\S",
    r"[^\w\s]",
    r"[\W\d]",
    ".",
    "a.b",
    "(?s).",
    "(?s:a.)",
    "(?i)k",
    "(?i:[a-k])",
    "(?i)[^k]",
    r"(?a)\w",
    r"(?a)\s",
    r"(?a)[\W]",
    "^a$",
    "^a|b$",
    r"\A(a|ab)\Z",
    "(?P<year>[0-9]{4})-[0-9]{2}-[0-9]{2}",
    "(?x) a \\# b # that is it",
    "[[]",
    "[]]",
    "[a-]",
    r"\u65e5.",
    r"\x61",
    r"a\x2fb",
    "[^\n]",
    r"\\",
    "a{2}",
    "a{2",
    r"\^a\$",
    "(?:)",
    "()a",
    "[\U0001f600-\U0001f64f]",
    "a(?#b)",
)


class _Bytes:
    """The 256 bytes and an end."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([number]) for number in range(256)] + [b"end"]

    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)


@pytest.fixture(scope="module")
def matches():
    """Return a function: an expression and a text → whether llguidance matches it."""
    words = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()))

    def check(pattern, text):
        matcher = llguidance.LLMatcher(words, f"start: /{pattern}/", log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        data = list(text.encode())
        return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()

    return check


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_translated_matches_what_python_does(pattern, matches):
    translation = translated(pattern)
    found = [text for text in TEXTS if matches(translation, text)]
    assert found == [text for text in TEXTS if re.fullmatch(pattern, text)]


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("a(?=b)b", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        (r"(a)\1", "reference to a group"),
        ("(a)?(?(1)b|c)", "reference to a group"),
        ("(?>a*)b", "atomic"),
        ("a*+b", "possessive"),
        (r"a\bb", "anchor or a boundary"),
        ("a^b", "anchor or a boundary"),
        ("(a$)b", "anchor or a boundary"),
        ("(^a)*", "anchor or a boundary"),
        ("[\ud800-\udfff]", "surrogate"),
        ("a(b", "unterminated"),
        ("{2}", "nothing to repeat"),
        (r"\p{L}", "bad escape"),
        ("(" * 5000 + ")" * 5000, "too deep"),
    ],
)
def test_what_no_automaton_follows_is_refused(pattern, reason):
    with pytest.raises(ValueError, match=reason):
        translated(pattern)
