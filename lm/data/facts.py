"""A store and its training windows in; what is known of the text, as numbers, of the whole and of each source, out."""

from collections.abc import Sequence
from typing import Any

from lm.data.build import SPLITS
from lm.data.store import Store
from lm.data.windows import Units

_NUMBERS = ("records", "tokens", "bytes", "input_bytes", "xz_bytes")


def facts(store: Store, train: Sequence[Units], samples: int) -> dict[str, Any]:
    """Return splits and parts of the store, and what a run of so many samples makes of them.

    parts: of each source its share of the samples, its windows' or pairs' own numbers, how often the run sees each of
    them, and its splits. train, valid: sums, of what is trained on and of all that is held out; xz_bytes only where
    all of them have it.
    """
    parts = [
        {
            "source": part.name,
            "share": share,
            "epochs": samples * share / max(1, mine.plan.whole),
            "store": part.folder.name,
        }
        | mine.numbers()
        | {split: {name: part.facts[split][name] for name in _NUMBERS} for split in SPLITS}
        for part, share, mine in zip(store.parts, store.shares, train, strict=True)
    ]

    def total(split: str, name: str) -> int | None:
        values = [part[split][name] for part in parts if part["share"] or split == "valid"]
        return None if None in values else sum(values)

    return {
        "fingerprint": store.fingerprint,
        **{split: {name: total(split, name) for name in _NUMBERS} for split in SPLITS},
        "parts": parts,
    }
