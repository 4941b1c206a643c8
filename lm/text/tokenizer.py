"""Text ↔ token ids, one face for all kinds: a `tokenizer.json` of the tokenizers library."""

import array
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from lm import workdir
from lm.config.data import LEARNED
from lm.refusal import Refusal
from lm.text.bounded import FILE, IDS, from_json, guarded, read_bytes

END = "<|endoftext|>"  # stands before every record and after the last, so it opens and closes a text
MASKS = ("[MASK]", "<mask>")  # what is taken for the mask token where no other is named
SENTINEL = "<extra_id_{}>"  # the spelling of T5's (Raffel et al. 2020), from 0
_PUBLISHED = "published"  # folder, inside a tokenizer's own

# A cut that no tokenizer learned here sees: after a line's end, between two printing characters. GPT-2's pattern
# makes the newline a token of its own there, so that the pieces' tokens are the whole's; BERT's words end at white
# space anyway, and no normal form joins a newline with what follows. What a file's tokenizer sees nobody knows: its
# texts stay whole.
_CUT = re.compile(r"(?<=\S\n)(?=\S)")
_PIECE = 1 << 16  # characters
_BATCH = 1 << 21  # characters that are encoded at once: a chunk of a build at most


class Specials(NamedTuple):
    """Ids with a meaning of their own.

    size: largest id + 1. end: of the end-of-text token. start: what a decoder with an encoder reads first: what its
    config says, or the padding token, as T5's does, or else the end. first: what stands before a text that an encoder
    classifies: [CLS] or <s>, or else the end. mask: of the mask token, or None. sentinels: of <extra_id_0> and
    those after it, by their numbers. unwritten: special tokens, and ids of no token: what no text has, but for unknown
    words' token.
    """

    size: int
    end: int
    start: int = 0
    first: int = 0
    mask: int | None = None
    sentinels: tuple[int, ...] = ()
    unwritten: tuple[int, ...] = ()


class Tokenizer:
    """Text ↔ ids.

    size: largest id + 1. end: id of the end-of-text token. kind: as the config spells it.
    published: the texts of the files that it was published as, by their names; nothing where it is of our making.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        kind: str,
        end: str,
        published: Mapping[str, str] | None = None,
        mask: str = "",
        others: Iterable[int] = (),
        start: int | None = None,
    ):
        """Take a tokenizer whose special tokens `end` and `mask` are; an empty mask is one of MASKS, if it is there.

        others: ids with which a text ends too. start: what a decoder with an encoder reads first, where it is said.
        """
        self._inner = inner
        self._inner.encode_special_tokens = True  # a document that spells a special token does not get it
        self._end, self._mask, self._others, self._start = end, mask, tuple(others), start
        self._cut = kind.partition(":")[0] in LEARNED
        self.kind = kind
        self.size = max(inner.get_vocab().values()) + 1  # a file's ids may have holes
        self.end = inner.token_to_id(end)
        self.published = dict(published or {})

    @property
    def ends(self) -> frozenset[int]:
        """The ids of all tokens that end a text."""
        return frozenset((self.end, *self._others))

    @property
    def specials(self) -> Specials:
        """The ids that an objective may need."""
        special = special_tokens(self._inner)
        sentinels = itertools.takewhile(special.__contains__, map(SENTINEL.format, itertools.count()))
        masks = [special[name] for name in ((self._mask,) if self._mask else MASKS) if name in special]
        written = set(self._inner.get_vocab().values()) - set(special.values())
        return Specials(
            size=self.size,
            end=self.end,
            start=special.get("<pad>", self.end) if self._start is None else self._start,
            first=special.get("[CLS]", special.get("<s>", self.end)),
            mask=masks[0] if masks else None,
            sentinels=tuple(special[name] for name in sentinels),
            unwritten=tuple(sorted(set(range(self.size)) - written)),
        )

    @property
    def spellings(self) -> tuple[str, ...]:
        """How the special tokens are spelled."""
        return tuple(special_tokens(self._inner))

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that a published tokenizer's file puts before a text, such as Llama's <s>, and behind."""
        places = list(zip((one := self._inner.encode("a")).ids, one.special_tokens_mask, strict=True))
        first = lambda pairs: tuple(i for i, _ in itertools.takewhile(lambda pair: pair[1], pairs))
        before = first(places)
        return before, first(reversed(places[len(before) :]))[::-1]

    @property
    def opening(self) -> tuple[int, ...]:
        """The first part of the frame."""
        return self.frame[0]

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
        pieces = [list(_pieces(text)) if self._cut else [text] for text in texts]
        ids, lengths = array.array("I"), []
        encode = lambda some: self._inner.encode_batch_fast(some, add_special_tokens=False)
        for some in _batches(itertools.chain.from_iterable(pieces)):
            for one in guarded(lambda some=some: encode(some), f"the tokenizer {self.kind!r} cannot cut a text"):
                ids.fromlist(one.ids)  # the fastest way out of a list, which is the only way out of the library
                lengths.append(len(one))
        owners = np.repeat(np.arange(len(pieces)), [len(group) for group in pieces])
        return np.frombuffer(ids, np.uint32), np.bincount(owners, lengths, len(pieces)).astype(np.int64)

    def marked(self, text: str) -> list[int]:
        """Return the ids of a text in which the mask token's and the sentinels' spellings stand for these tokens."""
        specials = self.specials
        ids = {self.spelled(index): index for index in (specials.mask, *specials.sentinels) if index is not None}
        pieces = re.split(f"({'|'.join(map(re.escape, ids))})", text) if ids else [text]
        return [index for piece in pieces for index in ([ids[piece]] if piece in ids else self.encode(piece).tolist())]

    def templated(self, text: str) -> list[int]:
        """Return the ids of a text in which every special token's spelling stands for it, as a chat template's do."""
        self._inner.encode_special_tokens = False
        try:
            encode = lambda: self._inner.encode(text, add_special_tokens=False).ids
            return guarded(encode, f"the tokenizer {self.kind!r} cannot cut a text")
        finally:
            self._inner.encode_special_tokens = True

    def framed(self, ids: Iterable[int]) -> np.ndarray:
        """Return the ids of a text in the frame that its tokenizer puts around one, such as [CLS] and [SEP].

        One without a frame gets what stands around a record here: end-of-text.
        """
        frame = self.frame if any(self.frame) else ([self.end], [self.end])
        return np.asarray([*frame[0], *ids, *frame[1]], np.int32)

    def decode(self, ids: Iterable[int], after: Iterable[int] = ()) -> str:
        """Return the text of the ids; bytes that are no UTF-8 become U+FFFD, end-of-text becomes nothing.

        after: ids that stand before them: whether a text begins with a space, some kinds know only from there.
        """
        before = [int(i) for i in after if i != self.end]
        read = lambda some: self._inner.decode(some, skip_special_tokens=False)
        return read(before + [int(i) for i in ids if i != self.end])[len(read(before)) :]

    def token(self, index: int) -> str:
        """Return the text of one token, for people to read; an id beyond the vocabulary is a `?`."""
        return self._end if index == self.end else self.decode([index]) if index < self.size else "?"

    def spelled(self, index: int) -> str | None:
        """Return how the vocabulary spells a token, special ones too; None where there is none."""
        return self._inner.id_to_token(index) if 0 <= index < IDS else None

    def to_json(self) -> str:
        """Return the tokenizer as the text of a tokenizer.json."""
        return self._inner.to_str()

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`; the kind, the end's and the mask's spelling, the ids of other ends and of the start,
        a line each; and the published files."""
        workdir.write(folder / FILE, self.to_json())
        lines = self.kind, self._end, self._mask, " ".join(map(str, self._others)), self._start
        workdir.write(folder / "kind.txt", "".join(f"{'' if line is None else line}\n" for line in lines))
        for name, text in self.published.items():
            workdir.write(folder / _PUBLISHED / name, text)


def load(folder: Path) -> Tokenizer:
    """Return the tokenizer that `save` wrote into the folder."""
    path = folder / FILE
    if not path.is_file():
        raise Refusal(f"there is no tokenizer at {path}.")
    lines = (folder / "kind.txt").read_text(encoding="utf-8").split("\n")
    kind, end, mask, others, start = [*lines, *[""] * 4][:5]
    published = {file.name: file.read_text(encoding="utf-8") for file in sorted((folder / _PUBLISHED).glob("*"))}
    inner = from_json(read_bytes(path, str(path)), str(path))
    return Tokenizer(inner, kind, end or END, published, mask, map(int, others.split()), int(start) if start else None)


def special_tokens(inner: tokenizers.Tokenizer) -> dict[str, int]:
    """Return the special tokens of a tokenizer by their ids' order: spelling → id."""
    return {token.content: index for index, token in sorted(inner.get_added_tokens_decoder().items()) if token.special}


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Return how many bytes of UTF-8 a token of the texts stands for: 1 is what bytes alone give."""
    return sum(len(text.encode()) for text in texts) / sum(map(len, tokenizer.encode_all(texts)))


def _batches(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield the pieces, some at a time: until its ids are taken, an encoded token is some 80 bytes."""
    batch: list[str] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > 2 * _PIECE:
        cut = _CUT.search(text, start + _PIECE)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]
