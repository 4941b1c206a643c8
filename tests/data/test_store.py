"""A store gives back the text it was built from, once built stays, and notices when it is damaged."""

import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lm.data import catalog, store
from lm.data.sources import Record, Source
from lm.refusal import Refusal

WORDS = ("the", "of", "and", "naïve", "日本", "x", "=", "3;", "def", "f():", "return\n\n")

OPEN = """
import os, sys, time
from types import SimpleNamespace
from lm.data.store import open_store
folder, pattern, go, *kinds = sys.argv[1:]
def say(words):
    print(words, flush=True)
    if go == "die" and words.startswith("tokenising valid"):
        os.kill(os.getpid(), 9)
    if os.path.exists(go) and "learning" in words:
        time.sleep(0.7)  # so that the other process comes while this one builds
print("ready", flush=True)
while go not in ("", "die") and not os.path.exists(go):
    time.sleep(0.001)
for kind in kinds:
    section = SimpleNamespace(
        store=folder, source=pattern, text_field="text", tokenizer=kind, valid_fraction=0.1, normalization="none",
        end_token="",
    )
    print("fingerprint", open_store(section, say).fingerprint)
"""


def texts(count, words=31, seed=7):
    chance = random.Random(seed)
    return [f"{number} " + " ".join(chance.choices(WORDS, k=words)) for number in range(count)]


def write_lines(folder, values):
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in values))
    return f"files:{folder}/text.jsonl"


@pytest.fixture
def section(tiny, tmp_path):
    """Return a function: data fields → a data section whose store is in tmp_path."""

    def make(**fields):
        given = {"store": str(tmp_path / "store"), "tokenizer": "byte", "valid_fraction": 0.1} | fields
        return tiny(**{f"data__{name}": value for name, value in given.items()}).data

    return make


@pytest.fixture
def source_of(monkeypatch):
    """Return a function: records → what data.source must say to get them."""

    def make(records):
        whole = [Record(*record) for record in records]
        source = Source(lambda: iter(whole), repr(whole), 0)
        monkeypatch.setitem(catalog.SOURCES, "files", lambda rest, field: source)
        return "files:memory"

    return make


def records_of(opened, name):
    """Return the texts of a split's records, cut at their offsets."""
    split = getattr(opened, name)
    stops = [*split.offsets.tolist()[1:], split.tokens - 1]
    return [opened.tokenizer.decode(split.read(start, stop)) for start, stop in zip(split.offsets, stops, strict=True)]


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:311"])
@pytest.mark.parametrize("count", [3, 131])
def test_what_is_read_is_the_text_in_order_with_an_end_before_each_record_and_after_the_last(
    section, tmp_path, kind, count
):
    original = texts(count, words=97)
    opened = store.open_store(section(source=write_lines(tmp_path, original), tokenizer=kind))
    found = {name: records_of(opened, name) for name in store.SPLITS}
    if count < 100:
        assert [train + valid for train, valid in zip(found["train"], found["valid"], strict=True)] == original
    else:
        held_out = set(found["valid"])
        assert found["valid"] == [text for text in original if text in held_out]
        assert found["train"] == [text for text in original if text not in held_out]
    for name, split in (("train", opened.train), ("valid", opened.valid)):
        ids = split.read(0, split.tokens)
        assert ids.dtype == np.int32 and len(ids) == split.tokens
        assert np.flatnonzero(ids == opened.tokenizer.end).tolist() == [*split.offsets.tolist(), split.tokens - 1]
        assert split.bytes == sum(len(text.encode()) for text in found[name])


def test_few_records_give_their_tails(section, source_of):
    opened = store.open_store(section(source=source_of([("a", "0123456789" * 7), ("b", "x" * 7)]), valid_fraction=0.2))
    assert records_of(opened, "train") == ["0123456789" * 5 + "012345", "x" * 5]
    assert records_of(opened, "valid") == ["6789" + "0123456789", "xx"]


def test_many_records_are_held_out_whole_by_their_ids_alone(section, source_of, tmp_path):
    records = [
        (f"doc{number}#{part}", f"{number} {part}", f"doc{number}")
        for number in range(499)
        for part in ("code", "prose")
    ]
    opened = store.open_store(section(source=source_of(records)))
    valid = records_of(opened, "valid")
    assert sorted(records_of(opened, "train") + valid) == sorted(text for _, text, _ in records)
    documents = {text.split()[0] for text in valid}
    assert sorted(valid) == sorted(f"{number} {part}" for number in documents for part in ("code", "prose"))
    assert 0.06 < len(documents) / 499 < 0.14
    other = store.open_store(section(source=source_of(records[::-1]), store=str(tmp_path / "other")))
    assert records_of(other, "valid") == valid[::-1]


def test_a_hundred_documents_are_many_and_parts_do_not_count(section, source_of, tmp_path):
    parts = [(f"part{number}", f"text {number}", f"doc{number % 99}") for number in range(197)]
    few = store.open_store(section(source=source_of(parts)))
    many = store.open_store(section(source=source_of([*parts, ("doc99", "text")]), store=str(tmp_path / "other")))
    assert few.valid.offsets.size == 197  # a tail of each
    assert many.valid.offsets.size < 50


def test_the_tokenizer_learns_from_the_training_split_only(section, source_of):
    opened = store.open_store(section(source=source_of([("a", "abc" * 30 + "✗")]), tokenizer="char"))
    assert records_of(opened, "valid")[0].endswith("\ufffd")


@pytest.mark.parametrize("shard_tokens", [1, 97, 1009])
def test_shards_read_as_one(section, tmp_path, monkeypatch, shard_tokens):
    source = write_lines(tmp_path, texts(53))
    whole = store.open_store(section(source=source))
    monkeypatch.setattr(store, "_SHARD_TOKENS", shard_tokens)
    parts = store.open_store(section(source=source, store=str(tmp_path / "other")))
    assert len(whole.train.shards) == 1 < len(parts.train.shards)
    expected = whole.train.read(0, whole.train.tokens)
    assert parts.train.read(0, parts.train.tokens).tolist() == expected.tolist()
    for start in range(0, whole.train.tokens, 29):
        for stop in range(start + 1, whole.train.tokens + 1, 211):
            np.testing.assert_array_equal(parts.train.read(start, stop), expected[start:stop])
    assert parts.valid.read(0, 7).tolist() == whole.valid.read(0, 7).tolist()
    store.verify(parts)


def test_a_store_is_built_once_and_again_when_what_it_is_made_of_changes(section, tmp_path):
    source = write_lines(tmp_path, texts(53))
    said = []
    opened = lambda **fields: store.open_store(section(source=source, **fields), said.append)
    first = opened()
    assert any("learning" in words for words in said) and any("tokenising valid" in words for words in said)
    before = (first.folder / store.INDEX).stat().st_mtime_ns
    said.clear()
    second = opened()
    assert second.folder == first.folder and second.fingerprint == first.fingerprint and said == []
    assert (second.folder / store.INDEX).stat().st_mtime_ns == before
    folders = {first.folder, opened(tokenizer="char").folder, opened(valid_fraction=0.2).folder}
    write_lines(tmp_path, texts(53, seed=8))
    changed = opened()
    assert len(folders | {changed.folder}) == 4 and changed.fingerprint != first.fingerprint
    assert records_of(changed, "train")[3] + records_of(changed, "valid")[3] == texts(53, seed=8)[3]


@pytest.mark.parametrize("name", ["train-00000.bin", "valid-00000.bin", "train-offsets.bin"])
@pytest.mark.parametrize("damage", ["short", "long", "missing"])
def test_a_file_of_another_size_is_named(section, tmp_path, name, damage):
    data = section(source=write_lines(tmp_path, texts(53)))
    path = store.open_store(data).folder / name
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (2 if damage == "long" else -2))
    with pytest.raises(Refusal, match=rf"damaged: {path} is .*delete the folder to build it again\.$"):
        store.open_store(data)


@pytest.mark.parametrize("name", ["train-00000.bin", "valid-00000.bin", "valid-offsets.bin"])
def test_verify_notices_one_flipped_bit(section, tmp_path, name):
    opened = store.open_store(section(source=write_lines(tmp_path, texts(53))))
    store.verify(opened)
    path = opened.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(Refusal, match=rf"damaged: {path} has changed"):
        store.verify(opened)


@pytest.mark.parametrize("text", ["", "x"])
def test_too_little_text_for_both_splits_is_refused(section, source_of, text):
    with pytest.raises(Refusal, match=r"data\.source 'files:memory' is too small.*train split\.$"):
        store.open_store(section(source=source_of([("a", text)])))


def test_the_yardstick_is_what_xz_makes_of_the_validation_text(section, tmp_path):
    opened = store.open_store(section(source=write_lines(tmp_path, texts(131))))
    text = "".join(records_of(opened, "valid")).encode()
    assert abs(opened.index["splits"]["valid"]["xz_bytes"] - len(lzma.compress(text, preset=9))) <= 8
    assert opened.index["splits"]["train"]["xz_bytes"] is None


def test_beyond_its_limit_there_is_no_yardstick(section, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_XZ_BYTES", 97)
    opened = store.open_store(section(source=write_lines(tmp_path, texts(131))))
    assert opened.index["splits"]["valid"]["xz_bytes"] is None


def test_chunks_do_not_show(section, tmp_path, monkeypatch):
    source = write_lines(tmp_path, texts(53))
    whole = store.open_store(section(source=source)).fingerprint
    monkeypatch.setattr(store, "_CHUNK_CHARACTERS", 211)
    assert store.open_store(section(source=source, store=str(tmp_path / "other"))).fingerprint == whole


@pytest.mark.parametrize("left", ["part", "without index"])
def test_what_was_left_half_built_is_built_again(section, tmp_path, left):
    data = section(source=write_lines(tmp_path, texts(53)))
    first = store.open_store(data)
    kept = first.folder
    if left == "part":
        kept = kept.rename(kept.with_name(f"{kept.name}.part"))
    (kept / store.INDEX).unlink()
    (kept / "train-00000.bin").write_bytes(b"half")
    (kept / "train-00007.bin").write_bytes(b"of another build")
    again = store.open_store(data)
    assert again.fingerprint == first.fingerprint and records_of(again, "valid")
    store.verify(again)
    assert os.listdir(tmp_path / "store") == [again.folder.name]
    assert not (again.folder / "train-00007.bin").exists()


def opening(folder, source, go, *kinds, **environment):
    """Start a process that opens stores once the file `go` exists, or dies by SIGKILL while it builds."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(folder), source, str(go), *kinds],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_builder_killed_on_the_way_is_followed_at_once(section, tmp_path):
    source = write_lines(tmp_path, texts(53))
    killed = opening(tmp_path / "store", source, "die", "byte")
    said = killed.communicate()[0]
    assert killed.returncode == -signal.SIGKILL and "fingerprint" not in said
    assert sorted(path.suffix for path in (tmp_path / "store").iterdir()) == [".lock", ".part"]
    begun = time.monotonic()
    opened = store.open_store(section(source=source))
    assert time.monotonic() - begun < 5
    assert os.listdir(tmp_path / "store") == [opened.folder.name]
    shutil.rmtree(tmp_path / "store")
    assert store.open_store(section(source=source)).fingerprint == opened.fingerprint


def test_two_processes_at_once_build_one_store(tmp_path):
    source = write_lines(tmp_path, texts(131))
    both = [opening(tmp_path / "store", source, tmp_path / "go", "bpe:311") for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    (tmp_path / "go").touch()
    said = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({lines[-1] for lines in said}) == 1 and said[0][-1].startswith("fingerprint ")
    assert sorted(sum("learning" in line for line in lines) for lines in said) == [0, 1]
    (waiting,) = [line for lines in said for line in lines if line.startswith("waiting")]
    assert "is in use by process" in waiting


def test_the_fingerprint_does_not_depend_on_hashing(tmp_path):
    source = write_lines(tmp_path, texts(131))
    found = []
    for seed in ("3", "5"):
        process = opening(tmp_path / seed, source, "", "byte", "char", "bpe:311", PYTHONHASHSEED=seed)
        said = process.communicate()[0].splitlines()
        assert process.returncode == 0
        found.append([line for line in said if line.startswith("fingerprint")])
    assert found[0] == found[1] and len(set(found[0])) == 3
