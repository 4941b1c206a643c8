"""Safetensors files: what the format's own library writes is read, what we write it reads; damaged ones are refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lm.refusal import Refusal
from lm.weights import safetensors
from lm.weights.published import Tensor

ARRAYS = {
    "a.weight": np.arange(21, dtype=np.float32).reshape(3, 7),
    "b": np.arange(5, dtype=np.float16),
    "c": np.ones((2, 3), ml_dtypes.bfloat16) * 3,
    "one": np.array(2.5),
    "none": np.zeros((0, 4), np.float32),
    "count": np.arange(3),
}


def test_the_librarys_files_are_read(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = safetensors.read(tmp_path / "x.safetensors")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype.name)
        np.testing.assert_array_equal(found[name].read(), array, strict=True)


def test_the_library_reads_ours(tmp_path):
    tensors = {name: Tensor(array.shape, array.dtype.name, lambda array=array: array) for name, array in ARRAYS.items()}
    safetensors.write(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def header(**entries):
    """Return a header of tensors F32 [2] at bytes 0 to 8 unless said otherwise."""
    return {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry for name, entry in entries.items()}


def file(values, data=b"\0" * 8, count=None):
    """Return the bytes of a file."""
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return (len(text) if count is None else count).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has 0 bytes"),
        (b"\0" * 7, "it has 7 bytes"),
        (file(header(a={}), count=2**62), "a header of 4,611,686,018,427,387,904"),
        (file(header(a={}), count=25_000_001), "a header of 25,000,001"),
        (file(header(a={}), count=300), "a header of 300"),
        (file(b'{"a": '), "its header is not JSON"),
        (file(b"\xff\xff"), "its header is not JSON"),
        (file(b"[" * 100_000), "its header is not JSON"),
        (file([1]), "its header is no JSON object"),
        (file({"a": 3}), "a has no shape or no place"),
        (file(header(a={"shape": [-2]})), "a has no shape or no place"),
        (file(header(a={"shape": [2.0]})), "a has no shape or no place"),
        (file(header(a={"shape": [True, 2]})), "a has no shape or no place"),
        (file(header(a={"data_offsets": [8, 0]})), "lies at bytes"),
        (file(header(a={"data_offsets": [0, 8, 9]})), "lies at bytes"),
        (file(header(a={"shape": [3]})), "lies at bytes"),
        (file(header(a={"shape": [2**40, 2**40]})), "a has no shape or no place, or one beyond the file's"),
        (file(header(a={"dtype": "F8_E4M3"})), "of the dtype 'F8_E4M3': those read are F64"),
        (file(header(a={"dtype": ["F32"]})), "of the dtype"),
        (file(header(a={}, b={})), "b begins at byte 0 of the tensors, and not at 8"),
        (file(header(a={"data_offsets": [4, 12]}), b"\0" * 12), "begins at byte 4"),
        (file(header(a={}), b"\0" * 7), "its tensors have 8 bytes, and it has 7"),
        (file(header(a={}), b"\0" * 9), "its tensors have 8 bytes, and it has 9"),
        (file(header(**{"x" * 513: {}})), "which is no name"),
        (file(header(**{"a\nb": {}})), "which is no name"),
    ],
)
def test_damaged_files_are_refused(tmp_path, data, words):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(Refusal) as refusal:
        safetensors.read(path)
    assert words in str(refusal.value) and "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def test_a_file_that_becomes_shorter_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file(header(a={})))
    tensors = safetensors.read(path)
    path.write_bytes(file(header(a={}))[:-1])
    with pytest.raises(Refusal, match="it became shorter while it was read"):
        tensors["a"].read()
