"""Data sections whose stores are of the test's own, and sources that are lists of records."""

import ml_collections
import pytest

from lm.data import catalog
from lm.data.sources import Record, Source


@pytest.fixture
def section(tiny, tmp_path):
    """Return a function: unit of records, data fields → a data section whose store is in tmp_path."""

    def make(unit="text", **fields):
        given = {"store": str(tmp_path / "store"), "tokenizer": "byte", "valid_fraction": 0.1} | fields
        made = tiny(**{f"data__{name}": value for name, value in given.items()}).data
        return ml_collections.FrozenConfigDict(made.to_dict() | {"unit": unit})

    return make


@pytest.fixture
def source_of(monkeypatch):
    """Return a function: records, name → what data.source must say to get them."""
    named = {}
    monkeypatch.setitem(catalog.SOURCES, "files", lambda rest, field: named[rest])

    def make(records, name="memory"):
        whole = [Record(*record) for record in records]
        named[name] = Source(lambda: iter(whole), repr(whole), 0)
        return f"files:{name}"

    return make
