"""Prepared sets of TensorFlow Datasets are read without TensorFlow; what is not there is refused at once."""

import importlib.util
import json
import os
import shutil
import socket
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets

from lm.data import catalog, tfds
from lm.refusal import Refusal

TEXTS = [f"text {number}: naïve 日本 🙂\n" for number in range(131)]


class PrimeText(tensorflow_datasets.core.GeneratorBasedBuilder):
    """A small set, registered under the name prime_text."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")
    SPLITS: ClassVar = {"train": TEXTS, "validation": TEXTS[:7], "test": TEXTS[:5]}

    def _info(self):
        features = {
            "text": tensorflow_datasets.features.Text(),
            "number": tensorflow_datasets.features.Scalar(np.int32),
        }
        return tensorflow_datasets.core.DatasetInfo(
            builder=self, features=tensorflow_datasets.features.FeaturesDict(features)
        )

    def _split_generators(self, downloads):
        return {name: self._generate_examples(texts) for name, texts in self.SPLITS.items()}

    def _generate_examples(self, texts):
        yield from ((number, {"text": text, "number": number}) for number, text in enumerate(texts))


class TwoTexts(PrimeText):
    """Two configs, each of a version of its own; the first is the default."""

    BUILDER_CONFIGS: ClassVar = [
        tensorflow_datasets.core.BuilderConfig(name="plain.en", version="1.0.0"),
        tensorflow_datasets.core.BuilderConfig(name="b", version="2.0.0"),
    ]
    SPLITS: ClassVar = {"train": TEXTS[:3]}


class PairedText(PrimeText):
    """Pairs, and the class of each by its name and by a number."""

    def _info(self):
        kinds = tensorflow_datasets.features
        features = {
            "text": kinds.Text(),
            "answer": kinds.Text(),
            "kind": kinds.ClassLabel(names=["even", "odd"]),
            "number": kinds.Scalar(np.int32),
            "share": kinds.Scalar(np.float32),
        }
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=kinds.FeaturesDict(features))

    def _generate_examples(self, texts):
        for number, text in enumerate(texts):
            yield number, {"text": text, "answer": text[::-1], "kind": number % 2, "number": number, "share": 0.5}


class OddText(PrimeText):
    """Text that is not all UTF-8, and some empty."""

    SPLITS: ClassVar = {"train": ["", "one", b"tw\xffo"]}


class NothingButTest(PrimeText):
    """No text to train on."""

    SPLITS: ClassVar = {"test": TEXTS[:3]}


class EmptyText(PrimeText):
    """Only empty texts."""

    SPLITS: ClassVar = {"train": ["", ""]}


class FarText(PrimeText):
    """A set whose text must be downloaded, from where nobody answers."""

    def _split_generators(self, downloads):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return {"train": self._generate_examples([downloads.download(f"http://127.0.0.1:{port}/text.txt")])}


class HeavyText(PrimeText):
    """A set that only TensorFlow can make."""

    def _split_generators(self, downloads):
        raise ImportError("Failed importing tensorflow. Is it installed?")


class BrokenText(PrimeText):
    """A set whose code is wrong."""

    def _split_generators(self, downloads):
        raise KeyError("of no\nuse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of prepared sets."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("prime_text", "two_texts", "two_texts/b", "paired_text", "odd_text", "nothing_but_test", "empty_text"):
        if name == "nothing_but_test":
            tensorflow_datasets.builder(name, data_dir=folder, file_format="array_record").download_and_prepare()
        else:
            tfds.prepare(name, str(folder), lambda words: None)
    return folder


@pytest.fixture
def opened(folder):
    """Return a function: name, and fields of the data section → the source of a prepared set."""

    def make(name, field="text", root=folder, target="target", unit="text"):
        section = SimpleNamespace(folder=str(root), text_field=field, target_field=target, unit=unit)
        return catalog.source(f"tfds:{name}", section)

    return make


def test_each_split_gives_its_texts_and_test_is_never_read(opened, folder):
    for path in (folder / "prime_text" / "1.0.0").glob("*-test*"):
        path.chmod(0)
        path.write_bytes(b"damaged") if os.access(path, os.W_OK) else None
    source = opened("prime_text")
    train, valid = list(source.records()), list(source.valid())
    assert sorted(record.text for record in train) == sorted(TEXTS)
    assert sorted(record.text for record in valid) == sorted(TEXTS[:7])
    assert [record.id for record in train] == [f"train:{number}" for number in range(1, 132)]
    assert [record.id for record in valid] == [f"validation:{number}" for number in range(1, 8)]
    assert list(source.records()) == train  # again from the start
    assert source.size > sum(len(text.encode()) for text in TEXTS)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("target", "of_number"),
    [("answer", lambda n: TEXTS[n][::-1]), ("kind", lambda n: ("even", "odd")[n % 2]), ("number", str)],
)
def test_the_target_of_a_pair_is_a_text_the_name_of_a_class_or_a_number(opened, target, of_number):
    source = opened("paired_text", target=target, unit="pair")
    for read, count in ((source.records, len(TEXTS)), (source.valid, 7)):
        expected = [(TEXTS[number], of_number(number)) for number in range(count)]
        assert sorted((record.text, record.target) for record in read()) == sorted(expected)
    assert source.key != opened("paired_text").key


def test_a_set_without_a_split_for_validation_has_none(opened):
    assert opened("two_texts").valid is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("two_texts", "plain.en/1.0.0"),
        ("two_texts/b", "b/2.0.0"),
        ("two_texts/b:2.0.0", "b/2.0.0"),
        ("two_texts:1.0.0", "plain.en/1.0.0"),
    ],
)
def test_a_name_opens_the_default_config_or_the_one_named(opened, folder, name, place):
    assert tfds._folder(name, str(folder)) == folder / "two_texts" / place
    assert sorted(record.text for record in opened(name).records()) == TEXTS[:3]


def test_the_newest_version_is_opened(opened, folder, tmp_path):
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        shutil.copytree(folder / "prime_text" / "1.0.0", tmp_path / "prime_text" / version)
    assert tfds._folder("prime_text", str(tmp_path)).name == "1.10.0"
    assert tfds._folder("prime_text:1.9.0", str(tmp_path)).name == "1.9.0"


def test_the_key_changes_with_the_files_and_the_field(opened, folder, tmp_path):
    shutil.copytree(folder / "two_texts", tmp_path / "two_texts")
    key = lambda **options: opened("two_texts", root=tmp_path, **options).key
    before = key()
    assert key() == before and key(field="body") != before
    (path,) = (tmp_path / "two_texts" / "plain.en" / "1.0.0").glob("*-train*")
    os.utime(path, (7, 7))
    assert key() != before


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("odd_text", "text", "record 3: byte 2 is not UTF-8"),
        ("prime_text", "number", "train record 1 has no text in 'number' (data.text_field)"),
        ("prime_text", "body", "has no feature 'body' (data.text_field) among "),
        ("empty_text", "text", "is empty in its split 'train'"),
        ("nothing_but_test", "text", "has no split 'train' in "),
    ],
)
def test_what_holds_no_text_is_refused(opened, name, field, words):
    sentence(lambda: list(opened(name, field).records()), words)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("label", "has no feature 'label' (data.target_field) among "),
        ("share", "train record 1 has no text in 'share' (data.target_field) among 'answer', 'kind', "),
    ],
)
def test_what_has_no_target_is_refused(opened, target, words):
    sentence(lambda: list(opened("paired_text", target=target, unit="pair").records()), words)


def sentence(call, *words):
    """Check that a call is refused with one sentence that has all these words."""
    with pytest.raises(Refusal) as refusal:
        call()
    said = str(refusal.value)
    assert all(part in said for part in words), said
    assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("name", ["c4/en", "prime_text:3.0.0", "two_texts/c", "no_such_set"])
def test_what_is_not_prepared_is_refused_at_once_without_looking_further(opened, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setattr(socket, "socket", None)
    sentence(lambda: opened(name), f"'tfds:{name}' is not prepared in ", "python -m lm.data --config=... --prepare")


def test_versions_that_are_there_are_named(opened):
    sentence(lambda: opened("prime_text:3.0.0"), "prime_text, only 1.0.0: run")


def change_facts(folder, **changes):
    facts = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(facts | changes))


DAMAGES = {
    "short": (lambda folder, shard: os.truncate(shard, shard.stat().st_size - 100), "after train record 0"),
    "nothing": (lambda folder, shard: os.truncate(shard, 0), "after train record 0"),
    "missing": (lambda folder, shard: shard.unlink(), "after train record 0"),
    "one bit": (
        lambda folder, shard: shard.write_bytes(shard.read_bytes()[:4099] + b"?" + shard.read_bytes()[4100:]),
        "cannot be read after train record",
    ),
    "no features": (lambda folder, shard: (folder / "features.json").unlink(), "after train record 0"),
    "half features": (lambda folder, shard: os.truncate(folder / "features.json", 97), "after train record 0"),
    "half facts": (lambda folder, shard: os.truncate(folder / "dataset_info.json", 97), "dataset_info.json cannot be"),
    "no splits": (lambda folder, shard: change_facts(folder, splits=None), "dataset_info.json cannot be read"),
    "tfrecord": (lambda folder, shard: change_facts(folder, fileFormat="tfrecord"), "as tfrecord, which has no random"),
    "parquet": (lambda folder, shard: change_facts(folder, fileFormat="parquet"), "as parquet, which has no random"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_refused(opened, folder, tmp_path, damage):
    shutil.copytree(folder / "prime_text", tmp_path / "prime_text")
    harm, words = DAMAGES[damage]
    place = tmp_path / "prime_text" / "1.0.0"
    harm(place, next(place.glob("*-train*")))
    sentence(lambda: list(opened("prime_text", root=tmp_path).records()), str(place), words)


def test_preparing_says_what_it_does_and_writes_array_records(tmp_path, capsys):
    said = []
    tfds.prepare("prime_text", str(tmp_path), said.append)
    place = tmp_path / "prime_text" / "1.0.0"
    assert said == [f"preparing tfds:prime_text in {tmp_path}", f"prepared tfds:prime_text: {place}"]
    assert json.loads((place / "dataset_info.json").read_text())["fileFormat"] == "array_record"
    assert capsys.readouterr().out == ""
    tfds.prepare("prime_text", str(tmp_path), said.append)  # again: nothing to do
    assert len(said) == 4
    change_facts(place, fileFormat="tfrecord")
    sentence(lambda: tfds.prepare("prime_text", str(tmp_path), said.append), "prepared as tfrecord", "move it away")


needs_no_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is here"
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prime_txt", "no data set 'prime_txt' (did you mean 'prime_text'?)"),
        ("lm1bb", "no data set 'lm1bb' (did you mean 'lm1b'?)"),
        ("far_text", "'tfds:far_text' cannot be prepared (ConnectionError"),
        ("broken_text", "'tfds:broken_text' cannot be prepared (KeyError: "),
        ("two_texts/c", "'tfds:two_texts/c' cannot be prepared (ValueError: "),
        pytest.param("heavy_text", "pip install tensorflow-cpu", marks=needs_no_tensorflow),
        pytest.param("c4/en", "pip install tensorflow-cpu", marks=needs_no_tensorflow),
    ],
)
def test_what_cannot_be_prepared_is_refused(tmp_path, name, words):
    sentence(lambda: tfds.prepare(name, str(tmp_path), lambda said: None), words)


def test_the_extra_is_named_where_it_is_not_installed(opened, monkeypatch, tmp_path):
    source = opened("prime_text")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    words = "data.source reads tfds:: pip install 'lm[tfds]'."
    sentence(lambda: list(source.records()), words)
    sentence(lambda: tfds.prepare("lm1b", str(tmp_path), lambda said: None), words)
