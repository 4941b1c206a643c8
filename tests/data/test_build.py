"""What is held out, and how text flows through a build: in order, a few chunks at a time, told as it goes."""

import lzma
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lm.config import defaults
from lm.data import build
from lm.data.sources import Record, Source
from lm.text.learn import learn


def held(records, valid_fraction=0.1, valid=None, normalization="none"):
    """Return the training and the held-out texts of records."""
    source = Source(lambda: iter(Record(*record) for record in records), "", 0, valid)
    section = SimpleNamespace(valid_fraction=valid_fraction, normalization=normalization)
    found = list(build.texts(source, section))
    return [[text.text for text in found if text.is_valid == flag] for flag in (False, True)]


def test_few_records_give_their_tails():
    train, valid = held([("a", "0123456789" * 7), ("b", "x" * 7)], 0.2)
    assert train == ["0123456789" * 5 + "012345", "x" * 5]
    assert valid == ["6789" + "0123456789", "xx"]


def test_many_records_are_held_out_whole_by_their_ids_alone():
    records = [
        (f"doc{number}#{part}", f"{number} {part}", None, f"doc{number}")
        for number in range(499)
        for part in ("code", "prose")
    ]
    train, valid = held(records)
    assert sorted(train + valid) == sorted(text for _, text, *_ in records)
    documents = {text.split()[0] for text in valid}
    assert sorted(valid) == sorted(f"{number} {part}" for number in documents for part in ("code", "prose"))
    assert 0.06 < len(documents) / 499 < 0.14
    assert held(records[::-1])[1] == valid[::-1]


def test_a_hundred_documents_are_many_and_parts_do_not_count():
    parts = [(f"part{number}", f"text {number}", None, f"doc{number % 99}") for number in range(197)]
    assert len(held(parts)[1]) == 197  # a tail of each
    assert len(held([*parts, ("doc99", "text")])[1]) < 50


def test_a_source_with_validation_of_its_own_gives_all_the_rest_to_training():
    own = lambda: iter([Record("c", "three"), Record("d", "four")])
    assert held([("a", "one"), ("b", "two")], valid=own) == [["one", "two"], ["three", "four"]]


def test_of_a_source_no_more_than_the_beginning_is_read_twice():
    opened = []
    read = lambda number: opened.append(number) or Record(f"{number}", f"text {number}")
    source = Source(lambda: map(read, range(503)), "", 0)
    texts = list(build.texts(source, SimpleNamespace(valid_fraction=0.1, normalization="none")))
    assert len(texts) == 503 and opened == [*range(400), *range(503)]


def test_text_is_normal_before_it_is_cut():
    train, valid = held([("a", "e\u0301" * 10)], 0.2, normalization="nfc")
    assert (train, valid) == (["\u00e9" * 8], ["\u00e9" * 2])


def test_what_is_overlapped_comes_in_order_a_few_at_a_time():
    made, running, most = [], [], [0]
    lock = threading.Lock()

    def items():
        for number in range(29):
            made.append(number)
            yield number

    def work(number):
        with lock:
            running.append(number)
            most[0] = max(most[0], len(running))
        time.sleep(random.Random(number).random() / 200)
        with lock:
            running.remove(number)
        return number * number

    for place, result in enumerate(build._overlapped(work, items())):
        assert result == place * place
        assert len(made) <= place + build._CHUNKS
    assert made == list(range(29)) and most[0] == build._CHUNKS - 1


def test_a_failure_in_a_chunk_is_raised_after_those_before_it():
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(build._overlapped(lambda number: 7 // (3 - number), range(9)))
    assert found == [2, 3, 7]


def test_chunks_hold_a_bounded_part_of_the_text(monkeypatch):
    monkeypatch.setattr(build, "_CHUNK_CHARACTERS", 97)
    texts = [build.Text("x" * length, length % 3 == 0) for length in (1, 50, 60, 3, 400, 7)]
    chunks = list(build._chunks(texts))
    assert [text for chunk in chunks for text in chunk] == texts
    for chunk in chunks[:-1]:
        assert sum(len(text.text) for text in chunk[:-1]) < 97 <= sum(len(text.text) for text in chunk)


def test_what_is_written_is_each_record_after_an_end_of_text(tmp_path):
    records = [Record(f"{number}", "ab" * number + "é") for number in range(127)]
    section = defaults("data")
    section.update(valid_fraction=0.1, tokenizer="byte", sentinels=0)
    learned, heard = learn(section, []), []
    source = Source(lambda: iter(records), "", 0)
    facts = build.write(source, section, learned, np.dtype(np.uint32), tmp_path, heard.append)
    for name, flag in (("train", False), ("valid", True)):
        texts = [text.text for text in build.texts(source, section) if text.is_valid == flag]
        ids, offsets = [], []
        for text in texts:
            offsets.append(len(ids))
            ids += [learned.end, *text.encode()]
        assert np.fromfile(tmp_path / f"{name}-00000.bin", np.uint32).tolist() == [*ids, learned.end]
        assert np.fromfile(tmp_path / f"{name}-offsets.bin", np.int64).tolist() == offsets
        assert facts[name]["records"] == len(texts) and facts[name]["tokens"] == len(ids) + 1
        assert facts[name]["bytes"] == sum(len(text.encode()) for text in texts)
    assert heard[-1] == sum(facts[name]["bytes"] for name in build.SPLITS)


def test_progress_says_how_much_and_how_long(monkeypatch):
    said, clock = [], iter([100.0, 103.0, 106.0, 107.0, 112.0])
    monkeypatch.setattr(build.time, "monotonic", lambda: next(clock))
    report = build.progress("tokenising files:a", 60e6, said.append)
    for done in (10e6, 20e6, 30e6, 40e6):
        report(int(done))
    assert said == [
        "tokenising files:a: about 60.0 MB",
        "tokenising files:a: 20 of about 60 MB, 12 s left",
        "tokenising files:a: 40 of about 60 MB, 6 s left",
    ]


@pytest.mark.parametrize("count", [43, 499])
def test_pairs_are_held_out_whole_by_their_documents_and_left_out_where_half_is_empty(count):
    records = [(f"{n}", f"in {n}" * (n % 11 > 0), f"out {n}" * (n % 13 > 0), f"doc{n // 2}") for n in range(count)]
    source = Source(lambda: iter(Record(*record) for record in records), "", 0)
    found = list(build.texts(source, SimpleNamespace(valid_fraction=0.2, normalization="none")))
    pairs = list(zip(found[::2], found[1::2], strict=True))
    for text, target in pairs:
        assert text.is_input and not target.is_input and text.is_valid == target.is_valid
    expected = [(text, target, document) for _, text, target, document in records if text and target]
    assert [(text.text, target.text) for text, target in pairs] == [pair[:2] for pair in expected]
    held_out = {document for (text, _), (_, _, document) in zip(pairs, expected, strict=True) if text.is_valid}
    trained = {document for (text, _), (_, _, document) in zip(pairs, expected, strict=True) if not text.is_valid}
    assert held_out and not held_out & trained and 0.1 < len(held_out) / len(held_out | trained) < 0.3


def test_what_is_written_of_pairs_is_each_input_and_then_its_target(tmp_path, monkeypatch):
    records = [Record(f"{number}", "ab" * number + "é", f"{number} …") for number in range(1, 128)]
    section = defaults("data")
    section.update(valid_fraction=0.1, tokenizer="byte", sentinels=0)
    learned = learn(section, [])
    source = Source(lambda: iter(records), "", 0)
    monkeypatch.setattr(build, "_CHUNK_CHARACTERS", 211)  # a pair may lie in two of them
    heard = []
    facts = build.write(source, section, learned, np.dtype(np.uint16), tmp_path, heard.append)
    for name, flag in (("train", False), ("valid", True)):
        pairs = [record for record in records if (build._share(record.id) < 0.1) == flag]
        ids, offsets = [], []
        for text in (text for record in pairs for text in (record.text, record.target)):
            offsets.append(len(ids))
            ids += [learned.end, *text.encode()]
        assert np.fromfile(tmp_path / f"{name}-00000.bin", np.uint16).tolist() == [*ids, learned.end]
        assert np.fromfile(tmp_path / f"{name}-offsets.bin", np.int64).tolist() == offsets
        assert facts[name]["records"] == len(pairs) and facts[name]["files"][-1]["texts"] == 2 * len(pairs)
        assert facts[name]["bytes"] == sum(len(record.target.encode()) for record in pairs)
        assert facts[name]["input_bytes"] == sum(len(record.text.encode()) for record in pairs)
    assert heard[-1] == sum(facts[name]["bytes"] + facts[name]["input_bytes"] for name in build.SPLITS)
    targets = "".join(record.target for record in records if build._share(record.id) < 0.1).encode()
    assert facts["valid"]["xz_bytes"] == len(lzma.compress(targets, preset=9))
