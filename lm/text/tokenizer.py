"""Text ↔ token ids, one face for all kinds: a `tokenizer.json` of the tokenizers library."""

import array
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from lm import workdir
from lm.refusal import Refusal

END = "<|endoftext|>"  # stands before every record and after the last, so it opens and closes a text
FILE = "tokenizer.json"

# A cut that no tokenizer of ours sees: after a line's end, between two printing characters. GPT-2's pattern
# makes the newline a token of its own there, so that the pieces' tokens are the whole's.
_CUT = re.compile(r"(?<=\S\n)(?=\S)")
_PIECE = 1 << 16  # characters


class Tokenizer:
    """Text ↔ ids.

    size: number of ids. end: id of the end-of-text token. kind: as the config spells it.
    """

    def __init__(self, inner: tokenizers.Tokenizer, kind: str):
        self._inner = inner
        self._inner.encode_special_tokens = True  # a document that spells a special token does not get it
        self.kind = kind
        self.size = inner.get_vocab_size()
        self.end = inner.token_to_id(END)

    def encode(self, text: str) -> np.ndarray:
        """Return int32 ids `(tokens,)`."""
        return next(self.encode_all([text]))

    def encode_all(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield int32 ids for each text."""
        ids, counts = self.encode_flat(texts)
        stops = np.cumsum(counts)
        for start, stop in zip(stops - counts, stops, strict=True):
            yield ids[start:stop].astype(np.int32)

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the uint32 ids of all texts end to end, and how many each has `(texts,)`.

        In parallel over cores, without Python's lock; long texts are cut where no token crosses.
        """
        pieces = [list(_pieces(text)) for text in texts]
        encoded = self._inner.encode_batch_fast([p for ps in pieces for p in ps], add_special_tokens=False)
        ids = array.array("I")
        for one in encoded:
            ids.fromlist(one.ids)  # the fastest way out of a list, which is the only way out of the library
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        owners = np.repeat(np.arange(len(pieces)), [len(group) for group in pieces])
        return np.frombuffer(ids, np.uint32), np.bincount(owners, lengths, len(pieces)).astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; bytes that are no UTF-8 become U+FFFD, end-of-text becomes nothing."""
        return self._inner.decode([int(i) for i in ids if i != self.end], skip_special_tokens=False)

    def token(self, index: int) -> str:
        """Return the text of one token, for people to read; an id beyond the vocabulary is a `?`."""
        return END if index == self.end else self.decode([index]) if index < self.size else "?"

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into the folder."""
        workdir.write(folder / FILE, self._inner.to_str())
        workdir.write(folder / "kind.txt", self.kind + "\n")


def load(folder: Path) -> Tokenizer:
    """Return the tokenizer that `save` wrote into the folder."""
    path = folder / FILE
    if not path.is_file():
        raise Refusal(f"there is no tokenizer at {path}.")
    kind = (folder / "kind.txt").read_text(encoding="utf-8").strip()
    return Tokenizer(tokenizers.Tokenizer.from_file(str(path)), kind)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > 2 * _PIECE:
        cut = _CUT.search(text, start + _PIECE)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
