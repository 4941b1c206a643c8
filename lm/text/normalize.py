"""Text in, text in one of Unicode's normal forms out (Unicode Standard Annex 15)."""

import unicodedata

from tokenizers import normalizers

FORMS = {  # what a tokenizer does to a prompt; Python's tables are as new or newer than those of the library
    "none": None,
    "nfc": normalizers.NFC,
    "nfd": normalizers.NFD,
    "nfkc": normalizers.NFKC,
    "nfkd": normalizers.NFKD,
}


def normalized(text: str, form: str) -> str:
    """Return the text in a form of FORMS, by Python's own tables; a text in that form is returned as it is."""
    return text if form == "none" else unicodedata.normalize(form.upper(), text)
