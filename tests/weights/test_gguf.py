"""GGUF files against the gguf library: what it writes and dequantises, and there and back."""

import re
import sys

import gguf
import numpy as np
import pytest

from lm.refusal import Refusal
from lm.weights import gguf as ours
from lm.weights import gguf_scan
from lm.weights.gguf_names import FORMS
from lm.weights.place import open_place, save_place

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
    assert set(gguf_scan.TYPES) >= set(KINDS)  # older versions of the library know fewer


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


@pytest.mark.parametrize("kind", sorted(set(FORMS) - {"mistral"}))
def test_a_place_there_and_back(kind, published, tmp_path):
    model = published(kind)
    ours.write(tmp_path / "a.gguf", model, "F32")
    save_place(open_place(str(tmp_path / "a.gguf")), str(tmp_path / "b.gguf"), dtype="float32")
    back = ours.read(tmp_path / "b.gguf")
    assert back.config == _as_read(model.config) and back.generation == model.generation
    assert back.tokenizer.to_json() == model.tokenizer.to_json()
    assert back.tensors.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        np.testing.assert_allclose(back.tensors[name].read(), tensor.read(), rtol=0, atol=2**-22, err_msg=name)


def _as_read(config):
    """Return what a file says, in which one type may stand for another and unsaid means the same."""
    kind = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    return {**FORMS[kind].fixed, **config, "model_type": kind}


def test_vectors_and_routers_are_precise(published, tmp_path):
    ours.write(tmp_path / "a.gguf", published("mixtral"), "Q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert {types["output_norm.weight"], types["blk.1.ffn_gate_inp.weight"]} == {"F32"}
    assert {types["token_embd.weight"], types["blk.0.ffn_down_exps.weight"], types["blk.0.attn_q.weight"]} == {"Q8_0"}


def test_quantised_numbers_are_near(published, tmp_path):
    model = published("llama")
    ours.write(tmp_path / "a.gguf", model, "Q8_0")
    for name, tensor in ours.read(tmp_path / "a.gguf").tensors.items():
        wanted = model.tensors[name].read()
        steps = np.abs(wanted.reshape(-1, 32)).max(-1, keepdims=True) / 127  # of each block
        error = np.abs(tensor.read() - wanted).reshape(-1, 32)
        assert (error <= (0.57 if wanted.ndim == 2 else 0) * steps).all(), name  # a step itself has 11 bits


def test_rows_that_are_no_blocks_are_half_precision(published, tmp_path):
    model = published("llama")
    narrow = {name: narrowed(tensor) for name, tensor in model.tensors.items()}
    config = model.config | {"hidden_size": 31}
    ours.write(tmp_path / "a.gguf", model._replace(tensors=narrow, config=config), "Q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert types["token_embd.weight"] == "F16" and types["blk.0.ffn_down.weight"] == "Q8_0"


def narrowed(tensor):
    if tensor.shape[-1] != 32:
        return tensor
    return tensor._replace(shape=(*tensor.shape[:-1], 31), read=lambda: tensor.read()[..., :31])


def test_numbers_beyond_half_precision_are_refused(published, tmp_path):
    model = published("llama")
    large = {name: tensor._replace(read=lambda t=tensor: t.read() * 1e5) for name, tensor in model.tensors.items()}
    with pytest.raises(Refusal, match="beyond what F16 holds"):
        ours.write(tmp_path / "a.gguf", model._replace(tensors=large), "F16")
    assert not list(tmp_path.iterdir())


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 97}
SCALED = {
    "qwen2 yarn": {"rope_scaling": YARN},
    "llama": {"rope_scaling": LLAMA3},
    "llama linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.5}},
    "gemma3_text": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_positions_there_and_back(name, published, tmp_path):
    model = published(name.split()[0], rope_theta=500000.0, **SCALED[name])
    ours.write(tmp_path / "a.gguf", model, "F32")
    back = ours.read(tmp_path / "a.gguf")
    assert back.config == _as_read(model.config) and back.tensors.keys() == model.tensors.keys()


def test_the_form_of_transformers_5_means_the_same(published, tmp_path):
    old = published("gemma3_text", rope_theta=1e6, rope_scaling={"rope_type": "linear", "factor": 8.0})
    config = {name: value for name, value in old.config.items() if not name.startswith("rope")}
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    sliding = {"rope_type": "default", "rope_theta": 200.0}
    config["rope_parameters"] = {"full_attention": full, "sliding_attention": sliding}
    ours.write(tmp_path / "a.gguf", old._replace(config=config), "F32")
    assert ours.read(tmp_path / "a.gguf").config == _as_read(old.config)


@pytest.mark.parametrize(
    "kind, config, words",
    [
        ("llama", {"model_type": "mamba"}, "cannot hold model_type 'mamba'; it can hold llama, mistral,"),
        ("llama", {"hidden_act": "gelu"}, "cannot say hidden_act = 'gelu'"),
        ("llama", {"attention_bias": True}, "cannot say attention_bias = True"),
        ("llama", {"attention_sinks": 3}, "cannot say attention_sinks = 3"),
        ("qwen2", {"rope_scaling": YARN | {"attention_factor": 1.5}}, "of type 'yarn' with {'attention_factor': 1.5}"),
        ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "cannot say rope_scaling of type 'longrope'"),
        ("llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 5.0}}, "cannot say rope_scaling of type 'llama3'"),
        ("llama", {"num_attention_heads": None}, "needs num_attention_heads, which is None here"),
        ("mistral", {"sliding_window": 7}, "cannot say sliding_window = 7"),
        ("qwen2", {"use_sliding_window": True}, "cannot say use_sliding_window = True"),
        ("gemma2", {"query_pre_attn_scalar": 7}, "cannot say query_pre_attn_scalar = 7"),
        ("gemma2", {"layer_types": ["full_attention"] * 2}, "cannot say layer_types = "),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "cannot say attn_logit_softcapping = 50.0"),
        ("gpt2", {"activation_function": "gelu"}, "cannot say activation_function = 'gelu'"),
    ],
)
def test_what_gguf_cannot_say_is_refused(kind, config, words, published, tmp_path):
    with pytest.raises(Refusal, match=re.escape(words)):
        ours.write(tmp_path / "a.gguf", published(kind, **config), "F32")
    assert not list(tmp_path.iterdir())


def test_a_tensor_that_has_no_place_is_refused(published, tmp_path):
    model = published("llama")
    extra = dict(model.tensors) | {"model.layers.0.self_attn.sinks": model.tensors["model.norm.weight"]}
    with pytest.raises(Refusal, match=r"has no place for model\.layers\.0\.self_attn\.sinks"):
        ours.write(tmp_path / "a.gguf", model._replace(tensors=extra), "F32")


def test_another_type_is_not_written(published, tmp_path):
    with pytest.raises(Refusal, match="written as F32, F16, Q8_0, BF16, not as 'Q4_K'"):
        ours.write(tmp_path / "a.gguf", published("llama"), "Q4_K")


@pytest.mark.parametrize("is_same", [True, False])
def test_a_head_of_gpt2_may_repeat_the_embedding(is_same, published, tmp_path):
    model = published("gpt2", tie_word_embeddings=False)
    head = model.tensors["transformer.wte.weight" if is_same else "transformer.wpe.weight"].read()
    head = np.resize(head, (71, 32))
    tensors = dict(model.tensors) | {
        "lm_head.weight": published("llama").tensors["lm_head.weight"]._replace(read=lambda: head)
    }
    ours.write(tmp_path / "a.gguf", model._replace(tensors=tensors), "F32")
    back = ours.read(tmp_path / "a.gguf")
    assert back.config["tie_word_embeddings"] is is_same
    assert ("lm_head.weight" in back.tensors) is not is_same


def test_what_is_passed_over_is_said(published, tmp_path):
    heard = []
    ours.write(tmp_path / "a.gguf", published("llama"), "F32")
    ours.read(tmp_path / "a.gguf", heard.append)
    assert heard == [
        f"{tmp_path}/a.gguf: passed over, as it changes no logits: general.file_type, general.quantization_version"
    ]


def test_without_the_library_the_sentence_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(Refusal, match=r"a\.gguf is read by the gguf library: pip install 'lm\[gguf\]'\.$"):
        ours.read(tmp_path / "a.gguf")


def test_what_the_library_makes_of_ours(published, tmp_path):
    model = published("llama")
    ours.write(tmp_path / "a.gguf", model, "F32")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.architecture"] == "llama" and said["general.file_type"] == 0
    assert said["llama.attention.head_count_kv"] == 2 and said["llama.rope.dimension_count"] == 8
    assert said["tokenizer.ggml.pre"] == "smollm" and len(said["tokenizer.ggml.tokens"]) == 71
    norms = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_norm.weight")
    name = "model.layers.1.post_attention_layernorm.weight"
    np.testing.assert_array_equal(norms.data, model.tensors[name].read())
    # llama.cpp turns neighbours by one angle, Transformers the halves of a head: rows 0, 4, 1, 5, … of each.
    queries = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    wanted = model.tensors["model.layers.0.self_attn.q_proj.weight"].read().reshape(4, 8, 32)
    np.testing.assert_array_equal(queries.data.reshape(4, 8, 32), wanted[:, [0, 4, 1, 5, 2, 6, 3, 7]])
