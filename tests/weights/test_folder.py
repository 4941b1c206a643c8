"""Folders of Hugging Face's: several files, what is beside them, and what is refused."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lm.refusal import Refusal
from lm.weights import folder


def test_several_files_are_written_and_read(golden, tmp_path):
    found = folder.read(golden("llama").write(tmp_path / "one"))
    folder.write(tmp_path / "more", found, shard=20_000)
    files = sorted(path.name for path in (tmp_path / "more").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert all((tmp_path / "more" / file).stat().st_size < 25_000 for file in files)
    index = json.loads((tmp_path / "more" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.tensors.values())
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / "more" / file)[name], found.tensors[name].read())
    again = folder.read(tmp_path / "more")
    assert again.config == found.config and again.tensors.keys() == found.tensors.keys()


def test_nothing_is_left_of_a_folder_that_could_not_be_written(golden, tmp_path):
    found = folder.read(golden("llama").write(tmp_path / "one"))

    def broken():
        raise OSError("no space")

    name = next(iter(found.tensors))
    broken_one = {**found.tensors, name: found.tensors[name]._replace(read=broken)}
    with pytest.raises(OSError, match="no space"):
        folder.write(tmp_path / "two", found._replace(tensors=broken_one))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    "where",
    ["../one/model.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin", "other.safetensors", ".."],
)
def test_an_index_names_files_beside_it_alone(tmp_path, where):
    place = tmp_path / "one"
    (place / "sub").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    for path in (place / "model.safetensors", place / "sub" / "model.safetensors"):
        save_file({"a": np.zeros(3, np.float32)}, path)
    (place / "model.bin").write_bytes(b"")
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": where}}))
    with pytest.raises(Refusal, match="safetensors file beside it"):
        folder.read(place)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": ["a"]}, "has no weight_map"),
        ({"weight_map": {"a": 3}}, "has no weight_map"),
        ({"weight_map": {"b": "model.safetensors"}}, "names 'b', which model.safetensors does not hold"),
    ],
)
def test_an_index_without_sense_is_refused(tmp_path, index, words):
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refusal, match=words):
        folder.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[1]", "config.json holds no JSON object"),
        ("config.json", "[" * 100_000, "config.json is not JSON"),
        ("generation_config.json", "{", "generation_config.json is not JSON"),
        ("tokenizer.json", "{", "is no tokenizer.json"),
    ],
)
def test_damaged_json_is_refused(golden, tmp_path, name, text, words):
    golden("gpt2").write(tmp_path / "one")
    (tmp_path / "one" / name).write_text(text)
    with pytest.raises(Refusal, match=words):
        folder.read(tmp_path / "one")


class Evil:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_refused_with_what_converts_them_and_not_opened(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(Refusal, match=r"pytorch_model.bin is not read: .*save_pretrained.OTHER"):
        folder.read(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refusal, match=r"has no model.safetensors and no model.safetensors.index.json"):
        folder.read(tmp_path)
