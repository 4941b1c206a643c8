"""GGUF files against the gguf library: what it writes and dequantises, and there and back."""

import re

import gguf
import numpy as np
import pytest

from lm.refusal import Refusal
from lm.weights import gguf as ours
from lm.weights import gguf_scan
from lm.weights.gguf_names import FORMS

KINDS = gguf.GGMLQuantizationType
DEQUANTISED = sorted({KINDS.F32, KINDS.F16, *gguf.quants._type_traits})


def change(path, metadata=None, tensors=None, add=None):
    """Write the file anew with the library, some metadata and tensors changed (None: left out) or added."""
    metadata, tensors = metadata or {}, tensors or {}
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path.with_suffix(".new"), metadata.pop("general.architecture", architecture))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in metadata or key == "general.architecture":
            continue
        kinds = [*field.types, None]
        writer.add_key_value(key, field.contents(), kinds[0], kinds[1])
    for key, value in metadata.items():
        if value is not None:
            ours._add(writer, key, value)
    for tensor in reader.tensors:
        if tensors.get(tensor.name, True) is not None:
            array = tensors.get(tensor.name, tensor.data)
            writer.add_tensor(tensor.name, np.ascontiguousarray(array), raw_dtype=tensor.tensor_type)
    for name, array in (add or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").rename(path)


@pytest.fixture
def written(published, tmp_path):
    """Return a function: a model type → the path of a file of it, changed."""

    def write(kind="llama", type_name="F32", config=None, **changes):
        path = tmp_path / "a.gguf"
        ours.write(path, published(kind, **(config or {})), type_name)
        if changes:
            change(path, **changes)
        return path

    return write


def refused(words, path):
    with pytest.raises(Refusal, match=re.escape(words)) as caught:
        ours.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_types_are_the_librarys(kind):
    name, elements, size = gguf_scan.TYPES[kind]
    assert name == kind.name and (elements, size) == gguf.GGML_QUANT_SIZES[kind]


def test_no_type_is_missing():
    assert set(gguf_scan.TYPES) == set(KINDS)


def of_type(path, kind, blocks):
    """Write a Llama of one layer with the library, its embedding of blocks of a type."""
    writer = gguf.GGUFWriter(path, "llama")
    for field in ("context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{field}", 32)
    writer.add_uint32("llama.block_count", 1)
    writer.add_uint32("llama.rope.dimension_count", 2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=kind)
    for row in FORMS["llama"].rows[1:]:
        writer.add_tensor(row.theirs.format(layer=0), np.zeros((64, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", DEQUANTISED, ids=lambda kind: kind.name)
def test_random_blocks_are_dequantised(kind, tmp_path):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    width = 2 * elements if elements > 1 else 32
    blocks = np.random.default_rng(kind).integers(0, 256, (71, width // elements * size), np.uint8)
    of_type(tmp_path / "a.gguf", kind, blocks)
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(blocks, kind)
    tensor = ours.read(tmp_path / "a.gguf").tensors["model.embed_tokens.weight"]
    assert tensor.shape == (71, width) and tensor.read().dtype.name == tensor.dtype
    np.testing.assert_array_equal(tensor.read().astype(np.float32).view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(DEQUANTISED)), ids=lambda kind: kind.name)
def test_other_types_are_refused(kind, tmp_path):
    _, size = gguf.GGML_QUANT_SIZES[kind]
    of_type(tmp_path / "a.gguf", kind, np.zeros((71, 2 * size), np.uint8))
    refused(f"has tensors of type {kind.name}, which cannot be dequantised", tmp_path / "a.gguf")


@pytest.mark.parametrize("kind", FORMS)
def test_names_are_the_librarys(kind):
    form = FORMS[kind]
    (number,) = (number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == form.architecture)
    names = gguf.get_tensor_name_map(number, 3)
    for row in form.rows:
        theirs, ending = row.theirs.format(layer=2).rsplit(".", 1)
        # The library's map has the experts of a block as one tensor, without a number.
        name = row.name.format(layer=2, expert="").replace("experts..", "experts.")
        assert names.get_name(name.removesuffix(f".{ending}")) == theirs, name
        assert row.name.endswith(ending)
        assert number in gguf.MODEL_TENSORS and re.fullmatch(r"[a-z0-9_.]+\.(weight|bias)", row.theirs.format(layer=2))


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("type_name", ["F32", "BF16"])
def test_there_and_back(kind, type_name, published, tmp_path):
    model = published(kind)
    ours.write(tmp_path / "a.gguf", model, type_name)
    back = ours.read(tmp_path / "a.gguf")
    assert back.config == _as_read(model.config)
    assert back.generation == model.generation
    assert back.tokenizer.to_json() == model.tokenizer.to_json() and back.tokenizer.end == model.tokenizer.end
    assert back.tensors.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        there = back.tensors[name]
        assert there.shape == tensor.shape == there.read().shape
        assert there.dtype == there.read().dtype.name
        if (
            type_name == "BF16"
            and len(tensor.shape) == 2
            and not name.endswith(("wpe.weight", "moe.gate.weight", "mlp.gate.weight"))
        ):
            assert there.dtype == "bfloat16"
        is_one = kind.startswith("gemma") and name.endswith("norm.weight")  # 1 + weight is rounded
        error = np.abs(there.read().astype(np.float64) - tensor.read()).max()
        assert error <= (2.0**-23 if is_one else 0), name


def _as_read(config):
    """Return what a file says, in which one type may stand for another and unsaid means the same."""
    kind = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    return {**FORMS[kind].fixed, **config, "model_type": kind}
