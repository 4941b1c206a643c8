"""Files give records in an order of their own; what cannot be read is refused by file and line or row."""

import gzip
import io
import json
import re
import sys
import tracemalloc
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from lm.data.files import files
from lm.refusal import Refusal


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def packed(data):
    """Give gzip bytes without a time in them: workers that collect a second apart name the same tests."""
    return gzip.compress(data, mtime=0)


def table(values, **options):
    """Give the bytes of a .parquet: columns of values, written two rows to a group."""
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(values), file, row_group_size=2, write_page_checksum=True, **options)
    return file.getvalue()


def opened(pattern, field="text", target="target", unit="text"):
    return files(str(pattern), SimpleNamespace(text_field=field, target_field=target, unit=unit))


FILES = {
    "b.txt": "naïve\r\ntext\n".encode(),
    "a/c.jsonl": lines({"text": "one"}, {"text": "two", "n": 3}) + b"\n" + lines({"text": ""}, {"text": "four"}),
    "a/d.txt.gz": packed(b"packed"),
    "e.jsonl.gz": packed(lines({"text": "line\nbreak"})) + packed(lines({"text": "second member"})),
    "e.tsv": b'n\ttext\r\n3\t"quoted" it\r\n\r\n4\t\r\n5\tsix\r\n',
    "f.parquet": table({"n": [1, 2, 3, 4, 5], "text": ["日本", "", "r\ns", "u", "v"]}),
}
RECORDS = [
    ("a/c.jsonl:1", "one"),
    ("a/c.jsonl:2", "two"),
    ("a/c.jsonl:5", "four"),
    ("a/d.txt.gz", "packed"),
    ("b.txt", "naïve\r\ntext\n"),
    ("e.jsonl.gz:1", "line\nbreak"),
    ("e.jsonl.gz:2", "second member"),
    ("e.tsv:2", '"quoted" it'),
    ("e.tsv:5", "six"),
    ("f.parquet:1", "日本"),
    ("f.parquet:3", "r\ns"),
    ("f.parquet:4", "u"),
    ("f.parquet:5", "v"),
]


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("order", [list(FILES), list(FILES)[::-1]])
def test_files_of_all_kinds_in_an_order_that_creation_does_not_change(tmp_path, order):
    write(tmp_path, {name: FILES[name] for name in order})
    source = opened(f"{tmp_path}/**/*", "text")
    assert [record[:2] for record in source.records()] == RECORDS
    assert [record[:2] for record in source.records()] == RECORDS  # again from the start
    assert source.size == sum(map(len, FILES.values()))


def test_the_text_of_a_line_may_have_another_name(tmp_path):
    write(tmp_path, {"a.jsonl": lines({"body": "one", "text": 3}), "b.parquet": table({"text": [3], "body": ["two"]})})
    assert [record.text for record in opened(f"{tmp_path}/*", "body").records()] == ["one", "two"]


def test_the_key_changes_with_the_files_and_the_field(tmp_path):
    write(tmp_path, FILES)
    key = lambda field="text": opened(f"{tmp_path}/**/*", field).key
    before = key()
    assert key() == before
    assert key("body") != before
    write(tmp_path, {"b.txt": b"longer " * 7})
    changed = key()
    assert changed != before
    write(tmp_path, {"g.txt": b"new"})
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
        ("a.tsv", b"", "a.tsv is empty"),
        ("a.tsv", b"text\tn\n", "a.tsv is empty"),
        ("a.tsv", b"body\tn\none\t3\n", "a.tsv, line 2 has no text in 'text' (data.text_field) among 'body', 'n'"),
        ("a.tsv", b"text\tn\none\t3\ntwo\n", "a.tsv, line 3 has 1 columns, and the first line 2"),
        ("a.tsv", b"text\none\ntw\xffo\n", "a.tsv, line 3: byte 11 is not UTF-8"),
        ("a.txt.gz", packed(b"packed" * 997)[:-9], "a.txt.gz cannot be read"),
        ("a.txt.gz", b"not packed", "a.txt.gz cannot be read"),
        ("a.jsonl.gz", packed(lines({"text": "one"}))[:-3], "a.jsonl.gz cannot be read"),
        ("a", b"text", "a is none of .txt, .txt.gz, .jsonl"),
        ("txt", b"text", "txt is none of .txt"),
        ("a.gz", packed(b"text"), "a.gz is none of .txt"),
        ("a.parquet.gz", packed(b"text"), "a.parquet.gz is none of .txt"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file_and_line(tmp_path, name, data, words):
    refused(write(tmp_path, {"0.txt": b"good", name: data}), name, words)


def refused(folder, name, words, **fields):
    with pytest.raises(Refusal, match=re.escape(words)) as refusal:
        list(opened(f"{folder}/*", **fields).records())
    sentence = str(refusal.value)
    assert sentence.startswith("data.source") and str(folder / name) in sentence
    assert sentence.endswith(".") and "\n" not in sentence


BAD_TABLES = {
    "no column": (
        table({"body": ["one"], "n": [3]}),
        "has no column of text 'text' (data.text_field) among body (string)",
    ),
    "numbers": (table({"text": [3]}), "has no column of text 'text' (data.text_field) among text (int64)"),
    "lists": (table({"text": [["one"]]}), "among text (list<"),
    "null": (table({"text": ["one", "two", None]}), "a.parquet, row 3 has no text in 'text' (data.text_field)"),
    "no rows": (table({"text": pyarrow.array([], "string")}), "a.parquet is empty"),
    "no text": (table({"text": ["", ""]}), "a.parquet is empty"),
    "not UTF-8": (
        table({"text": pyarrow.array([b"one", b"", b"tw\xffo"], "binary")}),
        "a.parquet, row 3: byte 2 is not UTF-8",
    ),
    "not UTF-8, said to be": (
        table({"text": pyarrow.array([b"one", b"tw\xffo"], "binary").view("string")}),
        "a.parquet, row 2: byte 2 is not UTF-8",
    ),
    "another format": (b"text", "a.parquet cannot be read after row 0"),
    "nothing": (b"", "a.parquet cannot be read after row 0"),
    "cut": (table({"text": ["one", "two", "three"]})[:-9], "a.parquet cannot be read after row 0"),
    "one bit": (
        table({"text": ["text"] * 97 + ["three"]}, compression="none", use_dictionary=False).replace(b"thr", b"thq"),
        "a.parquet cannot be read after row 64",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_by_file_and_row(tmp_path, name):
    data, words = BAD_TABLES[name]
    refused(write(tmp_path, {"a.parquet": data}), "a.parquet", words)


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary", "dictionary"])
def test_text_in_a_table_may_be_stored_in_several_ways(tmp_path, kind):
    column = pyarrow.array(["naïve", "日本", "naïve"], "string")
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    write(tmp_path, {"a.parquet": table({"text": column})})
    assert [record.text for record in opened(f"{tmp_path}/*").records()] == ["naïve", "日本", "naïve"]


def test_without_pyarrow_the_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    write(tmp_path, {"a.parquet": FILES["f.parquet"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Refusal, match=r"^data.source reads .parquet: pip install 'lm\[parquet\]'\.$"):
        list(opened(f"{tmp_path}/*").records())


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_long_file_is_never_in_memory_whole(tmp_path, suffix):
    texts = [f"{number} " + "x" * 9973 for number in range(1009)]
    data = lines(*({"text": text} for text in texts)) if suffix != ".parquet" else table({"text": texts})
    write(tmp_path, {f"a{suffix}": packed(data) if suffix.endswith(".gz") else data})
    sizes = sum(len(record.text) for record in opened(f"{tmp_path}/*").records())  # imports what it needs
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    peak = 0
    for _ in opened(f"{tmp_path}/*").records():
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    peak += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == sum(map(len, texts)) and peak < sizes / 5


def test_a_pattern_without_files_is_refused(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(Refusal, match=r"a\.txt' matches no file\.$"):
        opened(f"{tmp_path}/a.txt", "text")


def test_a_file_that_goes_away_is_refused(tmp_path):
    write(tmp_path, {"a.txt": b"one", "b.txt": b"two"})
    source = opened(f"{tmp_path}/*.txt", "text")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(Refusal, match=r"b\.txt cannot be read"):
        list(source.records())


PAIRED = {
    "a.jsonl": lines({"target": "zwei", "text": "two"}, {"text": "", "target": "null"}, {"text": "no", "target": ""}),
    "b.jsonl.gz": packed(lines({"text": "three", "target": 3, "more": None})),
    "c.tsv": b"target\ttext\nvier\tfour\n",
    "d.parquet": table({"target": ["fünf", ""], "n": [5, 6], "text": ["five", "six"]}),
    "e.parquet": table({"text": ["six", "seven"], "target": pyarrow.array([6, 7], "int8")}),
    "f.tsv.gz": packed(b"text\ttarget\neight\t8\n"),
}
PAIRS = [
    ("a.jsonl:1", "two", "zwei"),
    ("b.jsonl.gz:1", "three", "3"),
    ("c.tsv:2", "four", "vier"),
    ("d.parquet:1", "five", "fünf"),
    ("e.parquet:1", "six", "6"),
    ("e.parquet:2", "seven", "7"),
    ("f.tsv.gz:2", "eight", "8"),
]


def test_pairs_have_an_input_and_a_target_which_may_be_a_number(tmp_path):
    write(tmp_path, PAIRED)
    assert [record[:3] for record in opened(f"{tmp_path}/*", unit="pair").records()] == PAIRS
    turned = opened(f"{tmp_path}/[acdf]*", "target", "text", unit="pair").records()
    assert [record[:3] for record in turned] == [(name, b, a) for name, a, b in PAIRS if name[0] in "acdf"]


def test_the_key_changes_with_what_is_read_of_the_same_files(tmp_path):
    write(tmp_path, PAIRED)
    keys = [opened(f"{tmp_path}/*", **fields).key for fields in ({}, {"unit": "pair"}, {"unit": "pair", "target": "n"})]
    assert len(set(keys)) == 3 and opened(f"{tmp_path}/*", target="n").key == keys[0]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"one", "a.txt is one text and holds no pairs"),
        ("a.jsonl", lines({"text": "one"}), "line 1 has no text in 'target' (data.target_field) among 'text'"),
        ("a.jsonl", lines({"target": "one", "n": 3}), "has no text in 'text' (data.text_field) among 'target', 'n'"),
        ("a.jsonl", lines({"text": 1, "target": "one"}), "line 1 has no text in 'text' (data.text_field) among"),
        ("a.jsonl", lines({"text": "one", "target": True}), "line 1 has no text in 'target' (data.target_field)"),
        ("a.jsonl", lines({"text": "one", "target": 1.5}), "line 1 has no text in 'target' (data.target_field)"),
        ("a.jsonl", lines(["text", "target"]), "line 1 has no text in 'text' (data.text_field) among no fields"),
        ("a.tsv", b"text\tlabel\none\t1\n", "line 2 has no text in 'target' (data.target_field) among 'text', 'label'"),
        (
            "a.parquet",
            table({"text": ["one"]}),
            "has no column of text 'target' (data.target_field) among",
        ),
        (
            "a.parquet",
            table({"text": ["one"], "target": [1.5]}),
            "no column of text 'target' (data.target_field) among",
        ),
        ("a.parquet", table({"text": [3], "target": ["one"]}), "has no column of text 'text' (data.text_field) among"),
        (
            "a.parquet",
            table({"text": ["one"], "target": pyarrow.array([None], "int8")}),
            "row 1 has no text in 'target'",
        ),
    ],
)
def test_what_is_no_pair_is_refused_by_file_and_line(tmp_path, name, data, words):
    refused(write(tmp_path, {name: data}), name, words, unit="pair")
