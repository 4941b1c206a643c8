"""Embedded text is Python's own library, without its tests, in the same order every time."""

import shutil
import sysconfig
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from lm.data import embedded
from lm.data.sources import Record

SECTION = SimpleNamespace()
SOME = ("json/decoder.py", "ast.py", "pydoc_data/topics.py", "json/__init__.py", "this.py")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Return a folder that stands for the standard library: a few files of it, a test, and one in no encoding."""
    root = Path(sysconfig.get_path("stdlib"))
    for name in SOME:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_ast.py").write_text("# a test\n")
    (tmp_path / "bad.py").write_bytes(b"# coding: klingon\n")
    monkeypatch.setattr(embedded.sysconfig, "get_path", lambda name: tmp_path)
    return tmp_path


def test_prose_and_code_exist_without_tests_and_in_the_same_order_every_time(library):
    read = lambda part: list(embedded.embedded(part, SECTION).records())
    some = {part: read(part) for part in ("", "prose", "code")}
    for part, records in some.items():
        assert records == read(part)
        assert len({record.id for record in records}) == len(records)
        assert all(record.text.strip() for record in records)
    assert sorted(some[""]) == sorted(some["prose"] + some["code"])
    assert [record.id for record in some["code"]] == [f"{name}#code" for name in sorted(SOME) if "topics" not in name]
    assert [record.text for record in some["code"]] == [
        (library / record.document).read_text(encoding="utf-8") for record in some["code"]
    ]
    assert {"ast.py#prose", "pydoc_data/topics.py#lambda"} < {record.id for record in some["prose"]}
    assert "JSON" in next(record.text for record in some["prose"] if record.id == "json/decoder.py#prose")


def test_the_key_changes_with_the_files(library):
    before = embedded.embedded("code", SECTION).key
    assert embedded.embedded("code", SECTION).key == before
    (library / "this.py").write_text("pass\n")
    assert embedded.embedded("code", SECTION).key != before


def test_the_whole_library_holds_no_tests_and_no_installed_packages(monkeypatch):
    monkeypatch.setattr(embedded, "_prose", lambda name, text: iter([Record(f"{name}#prose", "-")]))
    ids = [record.id for record in embedded.embedded("", SECTION).records()]
    assert len(ids) > 500
    paths = [PurePosixPath(name.partition("#")[0]) for name in ids if name.endswith("#code")]
    assert paths == sorted(paths)
    folders = {folder for path in paths for folder in path.parts[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "dist-packages"}
    assert "json/decoder.py#code" in ids and "pydoc_data/topics.py#code" not in ids


def test_prose_is_docstrings_and_comments_in_order_of_appearance():
    text = '"""Module."""\nx = 3  # beside code\n# block\n# of two\n\n# another\n'
    text += 'def f():\n    """Function."""\n    return "string"\n'
    (record,) = embedded._prose("m.py", text)
    assert record == Record("m.py#prose", "Module.\n\nblock\nof two\n\nanother\n\nFunction.\n", document="m.py")
    assert list(embedded._prose("m.py", "x = 3\n")) == []


def test_topics_are_the_pages_of_help():
    records = list(embedded._topics("topics.py", "topics = {'a': 'one', 'b': 'two'}\n"))
    assert [record[:2] for record in records] == [("topics.py#a", "one"), ("topics.py#b", "two")]
