"""Sources give records in an order of their own; what cannot be read is refused by file and line."""

import gzip
import itertools
import json
import re
from pathlib import PurePosixPath

import pytest

from lm.data import sources
from lm.refusal import Refusal


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def packed(data):
    """Give gzip bytes without a time in them: workers that collect a second apart name the same tests."""
    return gzip.compress(data, mtime=0)


FILES = {
    "b.txt": "naïve\r\ntext\n".encode(),
    "a/c.jsonl": lines({"text": "one"}, {"text": "two", "n": 3}) + b"\n" + lines({"text": ""}, {"text": "four"}),
    "a/d.txt.gz": packed(b"packed"),
    "e.jsonl.gz": packed(lines({"text": "line\nbreak"})) + packed(lines({"text": "second member"})),
}
RECORDS = [
    ("a/c.jsonl:1", "one"),
    ("a/c.jsonl:2", "two"),
    ("a/c.jsonl:5", "four"),
    ("a/d.txt.gz", "packed"),
    ("b.txt", "naïve\r\ntext\n"),
    ("e.jsonl.gz:1", "line\nbreak"),
    ("e.jsonl.gz:2", "second member"),
]


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("order", [list(FILES), list(FILES)[::-1]])
def test_files_of_all_kinds_in_an_order_that_creation_does_not_change(tmp_path, order):
    write(tmp_path, {name: FILES[name] for name in order})
    source = sources.files(f"{tmp_path}/**/*", "text")
    assert [record[:2] for record in source.records()] == RECORDS
    assert [record[:2] for record in source.records()] == RECORDS  # again from the start
    assert source.size == sum(map(len, FILES.values()))


def test_the_text_of_a_line_may_have_another_name(tmp_path):
    write(tmp_path, {"a.jsonl": lines({"body": "one", "text": 3})})
    assert [record.text for record in sources.files(f"{tmp_path}/*.jsonl", "body").records()] == ["one"]


def test_the_key_changes_with_the_files_and_the_field(tmp_path):
    write(tmp_path, FILES)
    key = lambda field="text": sources.files(f"{tmp_path}/**/*", field).key
    before = key()
    assert key() == before
    assert key("body") != before
    write(tmp_path, {"b.txt": b"longer " * 7})
    changed = key()
    assert changed != before
    write(tmp_path, {"f.txt": b"new"})
    assert key() != changed


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \n\t\n", "a.txt is empty"),
        ("a.txt.gz", packed(b""), "a.txt.gz is empty"),
        ("a.jsonl", b"\n\n", "a.jsonl is empty"),
        ("a.jsonl", lines({"text": ""}), "a.jsonl is empty"),
        ("a.txt", b"one\ntw\xffo\n", "a.txt, line 2: byte 6 is not UTF-8"),
        ("a.txt", b"one\n\n\xe6\x97", "a.txt, line 3: byte 5 is not UTF-8"),
        ("a.txt.gz", packed(b"one\n\xff"), "a.txt.gz, line 2: byte 4 is not UTF-8"),
        ("a.jsonl", lines({"text": "one"}) + b'{"text": "\xff"}\n', "a.jsonl, line 2: byte 26 is not UTF-8"),
        ("a.jsonl", lines({"text": "one"}) + b'{"text": "two"\n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"\n" + b"[" * 100_000, "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"\xef\xbb\xbf" + lines({"text": "one"}), "a.jsonl, line 1 is not JSON"),
        ("a.jsonl", lines({"text": "one"}, {"body": "two"}), "a.jsonl, line 2 has no text in 'text'"),
        ("a.jsonl", lines({"text": "one"}, {"text": 3}), "a.jsonl, line 2 has no text in 'text'"),
        ("a.jsonl", lines({"text": None}), "a.jsonl, line 1 has no text in 'text'"),
        ("a.jsonl", lines({"text": "one"}, "text"), "a.jsonl, line 2 has no text in 'text'"),
        ("a.jsonl", lines({"text": "one"}) + b'{"text": "\\ud83d"}\n', "a.jsonl, line 2 holds half of a surrogate"),
        ("a.txt.gz", packed(b"packed" * 997)[:-9], "a.txt.gz cannot be read"),
        ("a.txt.gz", b"not packed", "a.txt.gz cannot be read"),
        ("a.jsonl.gz", packed(lines({"text": "one"}))[:-3], "a.jsonl.gz cannot be read"),
        ("a.parquet", b"PAR1", "a.parquet is neither .txt nor .jsonl"),
        ("a", b"text", "a is neither .txt nor .jsonl"),
        ("a.gz", packed(b"text"), "a.gz is neither .txt nor .jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file_and_line(tmp_path, name, data, words):
    write(tmp_path, {"0.txt": b"good", name: data})
    with pytest.raises(Refusal, match=re.escape(words)) as refusal:
        list(sources.files(f"{tmp_path}/*", "text").records())
    sentence = str(refusal.value)
    assert sentence.startswith("data.source") and str(tmp_path / name) in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_a_pattern_without_files_is_refused(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(Refusal, match=r"a\.txt' matches no file\.$"):
        sources.files(f"{tmp_path}/a.txt", "text")


def test_a_file_that_goes_away_is_refused(tmp_path):
    write(tmp_path, {"a.txt": b"one", "b.txt": b"two"})
    source = sources.files(f"{tmp_path}/*.txt", "text")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(Refusal, match=r"b\.txt cannot be read"):
        list(source.records())


def test_embedded_prose_and_code_exist_without_tests_and_in_the_same_order_every_time():
    some = {
        part: list(itertools.islice(sources.embedded(part, "text").records(), 17)) for part in ("", "prose", "code")
    }
    for part, records in some.items():
        assert records == list(itertools.islice(sources.embedded(part, "text").records(), 17))
        assert len({record.id for record in records}) == 17
        assert all(record.text.strip() for record in records)
        assert {record.id.partition("#")[2] for record in records} == ({part} if part else {"prose", "code"})
    paths = [PurePosixPath(record.id.partition("#")[0]) for record in some["code"]]
    assert paths == sorted(paths)
    assert "import " in "".join(record.text for record in some["code"])


def test_embedded_holds_no_tests_and_no_installed_packages(monkeypatch):
    monkeypatch.setattr(sources, "_prose", lambda name, text: iter([sources.Record(f"{name}#prose", "-")]))
    ids = [record.id for record in sources.embedded("", "text").records()]
    assert len(ids) > 500
    folders = {folder for name in ids for folder in name.partition("#")[0].split("/")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "dist-packages"}
    assert "json/decoder.py#code" in ids and "pydoc_data/topics.py#code" not in ids


def test_prose_is_docstrings_and_comments_in_order_of_appearance():
    text = '"""Module."""\nx = 3  # beside code\n# block\n# of two\n\n# another\n'
    text += 'def f():\n    """Function."""\n    return "string"\n'
    (record,) = sources._prose("m.py", text)
    assert record == ("m.py#prose", "Module.\n\nblock\nof two\n\nanother\n\nFunction.\n", "m.py")
    assert list(sources._prose("m.py", "x = 3\n")) == []


def test_topics_are_the_pages_of_help():
    records = list(sources._topics("topics.py", "topics = {'a': 'one', 'b': 'two'}\n"))
    assert [record[:2] for record in records] == [("topics.py#a", "one"), ("topics.py#b", "two")]
