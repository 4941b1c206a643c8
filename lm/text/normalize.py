"""Text in, the same text in a Unicode normal form out."""

import unicodedata


def normalized(text: str, form: str) -> str:
    """Return the text in the form that data.normalization names."""
    return text if form == "none" else unicodedata.normalize(form.upper(), text)
