"""A store gives back the text it was built from, once built stays, and notices when it is damaged."""

import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lm import transfer
from lm.data import build, store
from lm.refusal import Refusal

WORDS = ("the", "of", "and", "naïve", "日本", "x", "=", "3;", "def", "f():", "return\n\n")

OPEN = """
import os, sys, time
from lm.config import defaults
from lm.data import build
from lm.data.store import open_store
folder, pattern, go, unit, *kinds = sys.argv[1:]
last, _, count = go.partition(" at ")
if count:
    build._CHUNK_CHARACTERS, build._SAY_SECONDS = 211, 0
heard = []
def say(words):
    print(words, flush=True)
    heard.append(words)
    if count and sum(line.startswith(last) for line in heard) == int(count):
        os.kill(os.getpid(), 9)
    if os.path.exists(go) and "learning" in words:
        time.sleep(0.7)  # so that the other process comes while this one builds
print("ready", flush=True)
while not (count or go == "" or os.path.exists(go)):
    time.sleep(0.001)
for kind in kinds:
    section = defaults("data")
    section.update(store=folder, source=pattern, tokenizer=kind, valid_fraction=0.1, unit=unit)
    section.update(mask_token="", sentinels=0)
    print("fingerprint", open_store(section, say).fingerprint)
"""


def texts(count, words=31, seed=7):
    chance = random.Random(seed)
    return [f"{number} " + " ".join(chance.choices(WORDS, k=words)) for number in range(count)]


def write_lines(folder, values):
    rows = ({"text": text, "target": f"{text[::-1]}✓"} for text in values)
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"files:{folder}/text.jsonl"


def records_of(opened, name, part=0):
    """Return the texts of a split's records, cut at their offsets."""
    split = getattr(opened.parts[part], name)
    stops = [*split.offsets.tolist()[1:], split.tokens - 1]
    read = lambda start, stop: opened.tokenizer.decode(split.read(np.arange(start, stop)))
    return [read(start, stop) for start, stop in zip(split.offsets, stops, strict=True)]


def contents(folder):
    """Return path → bytes of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:311"])
@pytest.mark.parametrize("count", [3, 131])
def test_what_is_read_is_the_text_in_order_with_an_end_before_each_record_and_after_the_last(
    section, tmp_path, kind, count
):
    original = texts(count, words=97)
    opened = store.open_store(section(source=write_lines(tmp_path, original), tokenizer=kind))
    found = {name: records_of(opened, name) for name in build.SPLITS}
    if count < 100:
        assert [train + valid for train, valid in zip(found["train"], found["valid"], strict=True)] == original
    else:
        held_out = set(found["valid"])
        assert found["valid"] == [text for text in original if text in held_out]
        assert found["train"] == [text for text in original if text not in held_out]
    for name, split in (("train", opened.parts[0].train), ("valid", opened.parts[0].valid)):
        ids = split.read(np.arange(split.tokens))
        assert ids.dtype == np.int32 and len(ids) == split.tokens
        assert np.flatnonzero(ids == opened.tokenizer.end).tolist() == [*split.offsets.tolist(), split.tokens - 1]
        assert split.bytes == sum(len(text.encode()) for text in found[name])


def test_the_tokenizer_learns_from_the_training_split_only(section, source_of):
    opened = store.open_store(section(source=source_of([("a", "abc" * 30 + "✗")]), tokenizer="char"))
    assert records_of(opened, "valid")[0].endswith("\ufffd")


@pytest.mark.parametrize("shard_tokens", [7, 97, 1009])
def test_shards_read_as_one(section, tmp_path, monkeypatch, shard_tokens):
    source = write_lines(tmp_path, texts(31, words=11))
    (whole,) = store.open_store(section(source=source)).parts
    monkeypatch.setattr(build, "_SHARD_TOKENS", shard_tokens)
    opened = store.open_store(section(source=source, store=str(tmp_path / "other")))
    (part,) = opened.parts
    assert len(whole.train.shards) == 1 < len(part.train.shards) == -(-whole.train.tokens // shard_tokens)
    expected = whole.train.read(np.arange(whole.train.tokens))
    assert part.train.read(np.arange(part.train.tokens)).tolist() == expected.tolist()
    for start in range(0, whole.train.tokens, 29):
        for stop in range(start, whole.train.tokens + 1, 211):
            np.testing.assert_array_equal(part.train.read(np.arange(start, stop)), expected[start:stop])
    places = np.random.default_rng(7).permutation(whole.train.tokens)[:101]
    np.testing.assert_array_equal(part.train.read(places), expected[places])
    assert part.valid.read(np.arange(7)).tolist() == whole.valid.read(np.arange(7)).tolist()
    store.verify(opened)


def test_a_store_is_built_once_and_again_when_what_it_is_made_of_changes(section, tmp_path):
    source = write_lines(tmp_path, texts(53))
    said = []
    opened = lambda **fields: store.open_store(section(source=source, **fields), said.append)
    folder = lambda opened: opened.parts[0].folder
    first = opened()
    assert any("tokenising" in words for words in said) and not any("learning" in words for words in said)
    before = contents(tmp_path / "store")
    said.clear()
    second = opened()
    assert folder(second) == folder(first) and second.fingerprint == first.fingerprint and said == []
    assert contents(tmp_path / "store") == before
    changes = {"tokenizer": "char"}, {"valid_fraction": 0.2}, {"normalization": "nfc"}
    folders = {folder(first), *(folder(opened(**fields)) for fields in changes)}
    write_lines(tmp_path, texts(53, seed=8))
    changed = opened()
    assert len(folders | {folder(changed)}) == 5 and changed.fingerprint != first.fingerprint
    assert records_of(changed, "train")[3] + records_of(changed, "valid")[3] == texts(53, seed=8)[3]
    assert opened(tokenizer="bpe:311").tokenizer.size == 311 and any("learning" in words for words in said)


def test_text_is_brought_to_its_normal_form_before_it_is_counted_and_learned(section, source_of):
    source = source_of([("a", "cafe\u0301 " * 30)])
    opened = store.open_store(section(source=source, tokenizer="char", normalization="nfc"))
    assert records_of(opened, "train")[0] + records_of(opened, "valid")[0] == "caf\u00e9 " * 30
    assert opened.parts[0].train.bytes + opened.parts[0].valid.bytes == 30 * len("caf\u00e9 ".encode())
    assert opened.tokenizer.size == 2 + len("caf\u00e9 ")


def mixed(source_of, *names):
    """Return data.mixture of 53 records a name, 1 to 3 of a cycle."""
    spelled = [source_of([(f"{name}{n}", f"{name} {n} " * 7) for n in range(53)], name) for name in names]
    return tuple(f"{source}={weight}" for weight, source in enumerate(spelled, 1))


def test_a_mixture_has_a_part_for_each_source(section, source_of):
    opened = store.open_store(section(mixture=mixed(source_of, "a", "b", "c")))
    assert [part.name for part in opened.parts] == ["files:a", "files:b", "files:c"]
    assert [part.weight for part in opened.parts] == [1, 2, 3] and opened.shares == [1 / 6, 2 / 6, 3 / 6]
    for place, name in enumerate("abc"):
        assert records_of(opened, "train", place)[0].startswith(f"{name} 0")
        assert (records_of(opened, "train", place)[7] + records_of(opened, "valid", place)[7]) == f"{name} 7 " * 7


@pytest.mark.parametrize(("kind", "tokenised"), [("byte", ["files:c"]), ("bpe:263", ["files:a", "files:b", "files:c"])])
def test_another_source_alone_is_tokenised_where_the_tokenizer_stays(section, source_of, kind, tokenised):
    mixture = mixed(source_of, "a", "b", "c")
    two = store.open_store(section(mixture=mixture[:2], tokenizer=kind))
    said = []
    three = store.open_store(section(mixture=mixture, tokenizer=kind), said.append)
    assert [words.split()[1].rstrip(":") for words in said if words.startswith("tokenised")] == tokenised
    assert ([part.folder for part in two.parts] == [part.folder for part in three.parts[:2]]) == (kind == "byte")
    assert two.fingerprint != three.fingerprint


def test_other_weights_are_another_fingerprint_of_the_same_tokens(section, source_of):
    mixture = mixed(source_of, "a", "b")
    first = store.open_store(section(mixture=mixture, tokenizer="char"))
    said = []
    changed = store.open_store(section(mixture=(mixture[0], "files:b=7"), tokenizer="char"), said.append)
    same = store.open_store(section(mixture=("files:a=0.5", "files:b=1"), tokenizer="char"), said.append)
    assert said == [] and [part.folder for part in changed.parts] == [part.folder for part in first.parts]
    assert changed.fingerprint != first.fingerprint == same.fingerprint


def test_a_source_of_no_weight_is_held_out_only(section, source_of):
    mixture = (source_of([("a", "abc" * 30)], "a") + "=1", source_of([("b", "xyz" * 30)], "b") + "=0")
    opened = store.open_store(section(mixture=mixture, tokenizer="char"))
    assert opened.shares == [1, 0] and opened.tokenizer.size == 2 + 3
    assert records_of(opened, "valid", 1) == ["\ufffd" * 9]


def test_two_sources_of_a_mixture_never_read_the_same_file(section, tmp_path):
    (tmp_path / "en").mkdir()
    write_lines(tmp_path / "en", texts(53))
    mixture = (f"files:{tmp_path}/**/*.jsonl=1", f"files:{tmp_path}/en/*=0")
    with pytest.raises(Refusal, match=r"both read .*en/.*\.jsonl, each holding out other records"):
        store.open_store(section(mixture=mixture))


@pytest.mark.parametrize(("tokenizer", "end"), [("byte", "Ġ"), ("bpe:311", "Ġ"), ("wordpiece:300", "[UNK]")])
def test_text_that_is_cut_into_the_end_of_text_is_refused(section, tmp_path, tokenizer, end):
    source = write_lines(tmp_path, [f"some text {number} 漢字 ∮" for number in range(53)])
    with pytest.raises(Refusal, match=r"^data\.(end_token|tokenizer)"):
        store.open_store(section(source=source, tokenizer=tokenizer, end_token=end))


def test_tokenizers_learn_from_all_sources_in_turn():
    streams = [iter(["a" * 7, "b" * 7, "c"]), iter([]), iter(["x" * 3] * 5)]
    assert "".join(text[0] for text in store._in_turn(streams)) == "axxxbxxc"


@pytest.mark.parametrize("name", ["train-00000.bin", "valid-00000.bin", "train-offsets.bin"])
@pytest.mark.parametrize("damage", ["short", "long", "missing"])
def test_a_file_of_another_size_is_named(section, tmp_path, name, damage):
    data = section(source=write_lines(tmp_path, texts(53)))
    path = store.open_store(data).parts[0].folder / name
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (2 if damage == "long" else -2))
    with pytest.raises(Refusal, match=rf"damaged: {path} is .*delete the folder to build it again\.$"):
        store.open_store(data)


@pytest.mark.parametrize("name", ["train-00000.bin", "valid-00000.bin", "valid-offsets.bin", "tokenizer.json"])
def test_verify_notices_one_flipped_bit(section, tmp_path, name):
    opened = store.open_store(section(source=write_lines(tmp_path, texts(53))))
    store.verify(opened)
    (path,) = (path for path in opened.files if path.name == name)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(Refusal, match=rf"damaged: {path} has changed"):
        store.verify(opened)


@pytest.mark.parametrize("text", ["", "x"])
def test_too_little_text_for_both_splits_is_refused(section, source_of, text):
    with pytest.raises(Refusal, match=r"'files:memory' is too small.*train split\.$"):
        store.open_store(section(source=source_of([("a", text)])))


def test_the_yardstick_is_what_xz_makes_of_the_validation_text(section, tmp_path):
    opened = store.open_store(section(source=write_lines(tmp_path, texts(131))))
    text = "".join(records_of(opened, "valid")).encode()
    assert abs(opened.parts[0].facts["valid"]["xz_bytes"] - len(lzma.compress(text, preset=9))) <= 8
    assert opened.parts[0].facts["train"]["xz_bytes"] is None


def test_beyond_its_limit_there_is_no_yardstick(section, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_XZ_BYTES", 97)
    opened = store.open_store(section(source=write_lines(tmp_path, texts(131))))
    assert opened.parts[0].facts["valid"]["xz_bytes"] is None


def test_chunks_do_not_show(section, tmp_path, monkeypatch):
    source = write_lines(tmp_path, texts(53))
    whole = store.open_store(section(source=source)).fingerprint
    monkeypatch.setattr(build, "_CHUNK_CHARACTERS", 211)
    assert store.open_store(section(source=source, store=str(tmp_path / "other"))).fingerprint == whole


@pytest.mark.parametrize("left", ["part", "without index"])
@pytest.mark.parametrize("kind", ["tokens", "tokenizer"])
def test_what_was_left_half_built_is_built_again(section, tmp_path, left, kind):
    data = section(source=write_lines(tmp_path, texts(53)), tokenizer="char")
    store.open_store(data)
    before = contents(tmp_path / "store")
    (kept,) = (tmp_path / "store").glob(f"{kind}-*")
    if left == "part":
        kept = kept.rename(kept.with_name(f"{kept.name}.part"))
    (kept / store.INDEX).unlink()
    largest = max(kept.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"half")
    (kept / "train-00007.bin").write_bytes(b"of another build")
    store.verify(store.open_store(data))
    assert contents(tmp_path / "store") == before


def test_a_build_that_fails_leaves_nothing_and_no_lock(section, source_of, tmp_path):
    with pytest.raises(Refusal):
        store.open_store(section(source=source_of([("a", "x")])))
    assert [path.name.partition("-")[0] for path in (tmp_path / "store").iterdir()] == ["tokenizer"]


def opening(folder, source, go, *kinds, unit="text", **environment):
    """Start a process that opens stores once the file `go` exists, or dies by SIGKILL while it builds."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(folder), source, str(go), unit, *kinds],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("unit", ["text", "pair"])
@pytest.mark.parametrize("moment", ["tokenizer char at 1", "tokenising at 9", "tokenised at 1"])
def test_a_builder_killed_on_the_way_is_followed_at_once_and_leaves_no_trace(section, tmp_path, moment, unit):
    source = write_lines(tmp_path, texts(53))
    killed = opening(tmp_path / "store", source, moment, "char", unit=unit)
    said = killed.communicate()[0]
    assert killed.returncode == -signal.SIGKILL and "fingerprint" not in said
    left = [path.name.partition("-")[0] + path.suffix for path in (tmp_path / "store").iterdir()]
    assert sorted(left) in (["tokenizer.lock", "tokenizer.part"], ["tokenizer", "tokens.lock", "tokens.part"])
    begun = time.monotonic()
    opened = store.open_store(section(source=source, tokenizer="char", unit=unit))
    assert time.monotonic() - begun < 5
    store.verify(opened)
    store.open_store(section(source=source, tokenizer="char", unit=unit, store=str(tmp_path / "undisturbed")))
    assert contents(tmp_path / "store") == contents(tmp_path / "undisturbed")
    assert len(contents(tmp_path / "store")) == 3 + 5


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


@pytest.mark.parametrize("kind", ["byte", "char", "bpe:311"])
def test_of_pairs_inputs_and_targets_are_read_in_turn_and_learned_from(section, tmp_path, kind):
    original = texts(131, words=11)
    source = write_lines(tmp_path, original)
    opened = store.open_store(section(unit="pair", source=source, tokenizer=kind))
    found = {name: records_of(opened, name) for name in build.SPLITS}
    both = [pair for name in build.SPLITS for pair in zip(found[name][::2], found[name][1::2], strict=True)]
    assert sorted(both) == sorted((text, f"{text[::-1]}✓") for text in original)
    assert 0 < len(found["valid"]) < 60
    for name, split in (("train", opened.parts[0].train), ("valid", opened.parts[0].valid)):
        assert split.input_bytes == sum(len(text.encode()) for text in found[name][::2])
        assert split.bytes == sum(len(text.encode()) for text in found[name][1::2])
    store.verify(opened)
    alone = store.open_store(section(source=source, tokenizer=kind))
    assert alone.parts[0].folder != opened.parts[0].folder and alone.fingerprint != opened.fingerprint
    assert not any(text.endswith("✓") for name in build.SPLITS for text in records_of(alone, name))


def test_pairs_that_leave_nothing_to_hold_out_are_refused(section, source_of):
    with pytest.raises(Refusal, match=r"'files:memory' is too small: nothing is left for the (train|valid) split\.$"):
        store.open_store(section(unit="pair", source=source_of([("a", "one", "eins")])))


def test_machines_that_share_an_object_store_build_once(section, tmp_path, far, monkeypatch):
    source = write_lines(tmp_path, texts(53))
    shared = section(source=source, tokenizer="char", store=str(far))
    found, said = [], {"one": [], "other": []}
    for machine, lines in said.items():
        monkeypatch.setattr(transfer, "NEAR", tmp_path / machine)
        opened = store.open_store(shared, lines.append)
        store.verify(opened)
        found.append((opened.fingerprint, contents(tmp_path / machine / "store")))
        store.open_store(shared, lambda words: pytest.fail(words))  # not even asked for again
    assert found[0] == found[1] and len(found[0][1]) == 3 + 5
    told = {machine: [line.partition(" ")[0] for line in lines] for machine, lines in said.items()}
    assert told == {"one": ["tokenizer", "sending", "tokenising", "tokenised", "sending"], "other": ["fetching"] * 2}
    assert sorted(path.name.partition("-")[0] for path in far.iterdir()) == ["tokenizer", "tokens"]


def test_one_that_was_half_sent_is_sent_again(section, tmp_path, far, monkeypatch):
    shared = section(source=write_lines(tmp_path, texts(53)), tokenizer="char", store=str(far))
    monkeypatch.setattr(transfer, "NEAR", tmp_path / "one")
    store.open_store(shared)
    for folder in far.iterdir():
        (folder / store.INDEX).unlink()
    monkeypatch.setattr(transfer, "NEAR", tmp_path / "other")
    said = []
    store.verify(store.open_store(shared, said.append))
    assert any(line.startswith("tokenised") for line in said)
    assert all((folder / store.INDEX).is_file() for folder in far.iterdir())
