"""Text is brought to Unicode's normal forms, and a tokenizer does to a prompt what the store does to a text."""

import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.text import learn
from lm.text.normalize import FORMS, normalized
from lm.text.tokenizer import load

# text → its forms nfc, nfd, nfkc, nfkd, as the examples of Unicode Standard Annex 15 (figures 3 to 6) and its tables
EXAMPLES = {
    "Å": ("Å", "A\u030a", "Å", "A\u030a"),
    "\u212b": ("Å", "A\u030a", "Å", "A\u030a"),  # the sign of the unit
    "A\u030a": ("Å", "A\u030a", "Å", "A\u030a"),
    "\u1e9b\u0323": ("\u1e9b\u0323", "\u017f\u0323\u0307", "\u1e69", "s\u0323\u0307"),
    "d\u0307\u0323": ("\u1e0d\u0307", "d\u0323\u0307", "\u1e0d\u0307", "d\u0323\u0307"),
    "ﬁ": ("ﬁ", "ﬁ", "fi", "fi"),
    "2⁵": ("2⁵", "2⁵", "25", "25"),
    "한": ("한", "\u1112\u1161\u11ab", "한", "\u1112\u1161\u11ab"),
    "ﾊﾞ": ("ﾊﾞ", "ﾊﾞ", "バ", "ハ\u3099"),
    "Ａ\u0308": ("Ａ\u0308", "Ａ\u0308", "Ä", "A\u0308"),
    "क\u093c": ("क\u093c", "क\u093c", "क\u093c", "क\u093c"),
    "\u0958": ("क\u093c", "क\u093c", "क\u093c", "क\u093c"),  # excluded from composition
    "plain\r\n text": ("plain\r\n text",) * 4,
}
CASES = [
    (form, text, forms[index])
    for index, form in enumerate(("nfc", "nfd", "nfkc", "nfkd"))
    for text, forms in EXAMPLES.items()
]


def tokenizer(kind, form, texts=()):
    return learn.learn(
        SimpleNamespace(tokenizer=kind, normalization=form, end_token="", mask_token="", sentinels=0), texts
    )


@pytest.mark.parametrize(("form", "text", "expected"), CASES)
def test_each_form_is_the_annexes(form, text, expected):
    assert normalized(text, form) == expected
    assert normalized(expected, form) == expected  # twice changes nothing
    assert normalized(text, "none") == text
    ours = tokenizer("byte", form)
    assert ours.decode(ours.encode(text)) == expected
    assert ours.encode(text).tolist() == list(expected.encode())


BYTES = {form: tokenizer("byte", form) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=61))
def test_what_is_normalised_stays_as_it_is(form, text):
    once = normalized(text, form)
    assert normalized(once, form) == once
    assert BYTES[form].encode(once).tolist() == list(once.encode())


@pytest.mark.parametrize("form", ["nfc", "nfd", "nfkc", "nfkd"])
def test_the_librarys_tables_agree_with_pythons_but_for_newer_characters(form):
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    letters = [letter for letter in letters if unicodedata.normalize(form.upper(), letter) != letter]
    differ = [letter for letter in letters if FORMS[form]().normalize_str(letter) != normalized(letter, form)]
    assert len(letters) > 700 and len(differ) < 0.1 * len(letters)
    assert all(ord(letter) > 0xFFFF or letter in "\u32ff\ua7f2\ua7f3\ua7f4\uab69" for letter in differ)


@pytest.mark.parametrize("kind", ["char", "bpe:311", "unigram:311", "wordpiece:311"])
def test_a_prompt_in_another_form_has_the_ids_of_the_text(kind, tmp_path):
    texts = [normalized(text, "nfkc") for text in ("café ﬁne Ａ", "한 バ")] * 7
    ours = tokenizer(kind, "nfkc", texts)
    ours.save(tmp_path)
    for loaded in (ours, load(tmp_path)):
        ids = loaded.encode("café fine A").tolist()
        assert loaded.encode("cafe\u0301 ﬁne Ａ").tolist() == ids
        assert loaded.decode(ids) == "café fine A"
