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


MODULE = '''"""Sums up.

At some length,
in lines.
"""
# A comment that is long enough to tell
# that it is a comment, of two lines
x = 3  # beside code

class Some:
    """One line alone, and long enough to tell what kind it is of."""

    def deep(self, argument):
        """Line one
        goes on at once, which PEP 257 does not have."""
        def inner():
            """Inner.

            More.
            """
            return [argument + 'quoted' for n in range(10)]  # gone
        return inner()

async def short():
    """Alone."""
'''


def test_summaries_are_the_first_lines_of_docstrings_and_inputs_the_rest():
    assert list(embedded._summaries("m.py", MODULE)) == [
        Record("m.py#1", "At some length,\nin lines.", "Sums up.", "m.py"),
        Record("m.py#17", "More.", "Inner.", "m.py"),
    ]


def test_kinds_are_those_of_passages_long_enough_to_tell():
    comment = "A comment that is long enough to tell\nthat it is a comment, of two lines"
    code = "def deep(self, argument):\n\n    def inner():\n        return [argument + 'quoted' for n in range(10)]\n"
    assert sorted(embedded._kinds("m.py", MODULE)) == [
        Record("m.py#code:13", code + "    return inner()", "code", "m.py"),
        Record("m.py#comment:7", comment, "comment", "m.py"),
        Record("m.py#docstring:11", "One line alone, and long enough to tell what kind it is of.", "docstring", "m.py"),
        Record("m.py#docstring:14", "Line one\ngoes on at once, which PEP 257 does not have.", "docstring", "m.py"),
    ]


@pytest.mark.parametrize("part", ["summaries", "kinds"])
def test_pairs_are_in_the_same_order_every_time_and_of_their_modules(library, part):
    records = list(embedded.embedded(part, SECTION).records())
    assert records == list(embedded.embedded(part, SECTION).records())
    assert len({record.id for record in records}) == len(records) > 4
    assert all(record.text.strip() and record.target.strip() for record in records)
    assert {"ast.py", "json/decoder.py"} <= {record.document for record in records} < set(SOME)
    assert all(record.id.startswith(f"{record.document}#") for record in records)
