"""Files that are damaged or made to do harm: each is refused, soon, with little memory, by an ordinary exception."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.refusal import Refusal
from lm.text import published as texts
from lm.text.tokenizer import END
from lm.weights import folder, gguf, safetensors
from lm.weights.place import open_place

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def number(kind, value):
    return struct.pack({U8: "<B", U32: "<I", F32: "<f", BOOL: "<B", U64: "<Q"}[kind], value)


def entry(key, kind, data):
    return text(key) + struct.pack("<I", kind) + (text(data) if kind == STRING and isinstance(data, str) else data)


def array(kind, count, data=b""):
    return struct.pack("<IQ", kind, count) + data


def tensor(name, shape=(32,), kind=0, offset=0):
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def file(*entries, tensors=(), data=b"", version=3, counts=None, magic=b"GGUF"):
    count, said = counts or (len(tensors), len(entries))
    body = magic + struct.pack("<IQQ", version, count, said) + b"".join(entries) + b"".join(tensors)
    return body + bytes(-len(body) % 32) + data


NAME = entry("general.architecture", STRING, "llama")
FRAMES = {
    "nothing": b"",
    "a magic and no more": b"GGUF",
    "another magic": file(NAME, magic=b"GGML"),
    "zeros": bytes(997),
    "version 1": file(NAME, version=1),
    "version 99": file(NAME, version=99),
    "of a big-endian machine": file(NAME, version=3 << 24),
    "2**40 entries": file(NAME, counts=(0, 2**40)),
    "2**63 tensors": file(NAME, counts=(2**63, 1)),
    "an entry too many": file(NAME, counts=(0, 2)),
    "a key of 2**40 bytes": file(struct.pack("<Q", 2**40) + b"general"),
    "a text of 2**64 - 1 bytes": file(entry("a", STRING, struct.pack("<Q", 2**64 - 1) + b"b")),
    "2**40 numbers": file(entry("a", ARRAY, array(U8, 2**40))),
    "2**61 wide numbers": file(entry("a", ARRAY, array(U64, 2**61))),
    "2**40 texts": file(entry("a", ARRAY, array(STRING, 2**40))),
    "2**40 arrays": file(entry("a", ARRAY, array(ARRAY, 2**40))),
    "arrays in arrays": file(entry("a", ARRAY, array(ARRAY, 1) * 100_000)),
    "2 million texts": lambda: file(entry("a", ARRAY, array(STRING, 2**21, bytes(8 << 21)))),
    "70 MB of numbers": lambda: file(entry("a", ARRAY, array(U8, 70 << 20, bytes(70 << 20)))),
    "4 times 40 MB of numbers": lambda: file(*(entry(key, ARRAY, array(U8, 40 << 20, bytes(40 << 20))) for key in "abcd")),  # noqa: E501
    "60 MB of a text": lambda: file(entry("a", STRING, "b" * (60 << 20) + "\U0001f600")),
    "15 times 4 MB of texts": lambda: file(*(entry(key, STRING, "b" * (4 << 20) + "\U0001f600") for key in "abcdefghijklmno")),  # noqa: E501
    "a million entries": lambda: file(*(entry(str(key), U8, b"\0") for key in range(70_000)), counts=(0, 1_000_000)),
    "an unknown type": file(entry("a", 13, b"")),
    "an array of an unknown type": file(entry("a", ARRAY, array(77, 1))),
    "neither true nor false": file(entry("a", BOOL, b"\2")),
    "no UTF-8": file(entry(b"\xff\xfe", U8, b"\0")),
    "a value that is no UTF-8": file(entry("a", STRING, text(b"\xff"))),
    "a key that rings": file(entry("a\a", U8, b"\0")),
    "a key without letters": file(entry("", U8, b"\0")),
    "a key of 10 kB": file(entry("a" * 10_000, U8, b"\0")),
    "a key twice": file(NAME, NAME),
    "an alignment of 0": file(NAME, entry("general.alignment", U32, number(U32, 0))),
    "an alignment of 3": file(NAME, entry("general.alignment", U32, number(U32, 3))),
    "an alignment that is a text": file(NAME, entry("general.alignment", STRING, "32")),
    "a tensor above its folder": file(NAME, tensors=[tensor("../../evil")], data=bytes(128)),
    "a tensor at the root": file(NAME, tensors=[tensor("/etc/passwd")], data=bytes(128)),
    "a tensor on another disk": file(NAME, tensors=[tensor("C:\\evil")], data=bytes(128)),
    "a tensor of two lines": file(NAME, tensors=[tensor("a\nb")], data=bytes(128)),
    "a tensor that hides": file(NAME, tensors=[tensor("a\x1b[2K")], data=bytes(128)),
    "a tensor's name ends in nothing": file(NAME, tensors=[tensor("a\0b")], data=bytes(128)),
    "two tensors of one name": file(NAME, tensors=[tensor("a"), tensor("a", offset=128)], data=bytes(256)),
    "no dimension": file(NAME, tensors=[tensor("a", ())], data=bytes(128)),
    "5 dimensions": file(NAME, tensors=[tensor("a", (2,) * 5)], data=bytes(128)),
    "2**31 dimensions": file(NAME, tensors=[text("a") + struct.pack("<I", 2**31)], data=bytes(128)),
    "an axis of 0": file(NAME, tensors=[tensor("a", (32, 0))], data=bytes(128)),
    "a product of 2**64": file(NAME, tensors=[tensor("a", (2**32, 2**32))], data=bytes(128)),
    "a product of 2**256": file(NAME, tensors=[tensor("a", (2**63, 2**63, 2**63, 2**63))], data=bytes(128)),
    "a tensor of an unknown type": file(NAME, tensors=[tensor("a", kind=5)], data=bytes(128)),
    "a row that is no blocks": file(NAME, tensors=[tensor("a", (33,), kind=8)], data=bytes(128)),
    "a tensor that begins beyond the end": file(NAME, tensors=[tensor("a", offset=2**40)], data=bytes(128)),
    "a tensor that begins at 2**64 - 32": file(NAME, tensors=[tensor("a", offset=2**64 - 32)], data=bytes(128)),
    "a tensor that ends beyond the end": file(NAME, tensors=[tensor("a")], data=bytes(127)),
    "a tensor between two places": file(NAME, tensors=[tensor("a", offset=4)], data=bytes(256)),
    "tensors that overlap": file(NAME, tensors=[tensor("a"), tensor("b", offset=96)], data=bytes(256)),
    "only a name": file(NAME),
}  # fmt: skip

GOOD = {
    "general.architecture": "llama",
    "llama.context_length": 17,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<|end|>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 0,
}
SHAPES = {
    "token_embd.weight": (5, 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}
MODELS = {  # what is wrong → metadata and shapes that make it so; None is left out
    "no architecture": {"general.architecture": ""},
    "an architecture that there is not": {"general.architecture": "../llama"},
    "a part of a model": {"split.count": 3},
    "an adapter": {"general.type": "adapter"},
    "a count that is a text": {"llama.block_count": "1"},
    "a count that is true": {"llama.block_count": True},
    "no layers": {"llama.block_count": 0},
    "2**32 - 1 layers": {"llama.block_count": 2**32 - 1},
    "a layer that is not there": {"llama.block_count": 2},
    "layers that nobody counts": {"llama.block_count": None},
    "no heads": {"llama.attention.head_count": 0},
    "heads for each layer": {"llama.attention.head_count_kv": [2]},
    "heads of an odd width": {"llama.rope.dimension_count": 7},
    "heads of two widths": {"llama.attention.key_length": 16},
    "an epsilon that is no number": {"llama.attention.layer_norm_rms_epsilon": float("nan")},
    "an infinite base": {"llama.rope.freq_base": float("inf")},
    "a vocabulary of another size": {"llama.vocab_size": 7},
    "rotary positions that we have not": {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0},
    "rotary positions by nothing": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0},
    "something that changes the logits": {"llama.attention.scale": 0.5},
    "experts of another kind": {"llama.expert_count": 8},
    "experts by a text": {"llama.expert_count": "8"},
    "a tensor missing": {"blk.0.ffn_up.weight": None},
    "no embedding": {"token_embd.weight": None},
    "a tensor too many": {"blk.0.ssm_a.weight": (32,)},
    "a layer too many": {"blk.1.attn_q.weight": (32, 32)},
    "a layer of 10**8": {"blk.100000000.attn_q.weight": (32, 32)},
    "rows that are no heads": {"blk.0.attn_q.weight": (30, 32)},
    "factors of nothing known": {"rope_freqs.weight": (4,)},
    "factors of another width": {"rope_freqs.weight": (3,)},
    "a tokenizer that there is not": {"tokenizer.ggml.model": "rwkv"},
    "a cut that there is not": {"tokenizer.ggml.pre": "gpt-99"},
    "a cut that nobody names": {"tokenizer.ggml.pre": None},
    "no tokens": {"tokenizer.ggml.tokens": None},
    "tokens that are numbers": {"tokenizer.ggml.tokens": [1, 2, 3]},
    "more tokens than rows": {"tokenizer.ggml.tokens": list("abcdefgh"), "tokenizer.ggml.token_type": None},
    "two tokens alike": {"tokenizer.ggml.tokens": ["<|end|>", "a", "b", "a"]},
    "a type too few": {"tokenizer.ggml.token_type": [3, 1, 1]},
    "a type that there is not": {"tokenizer.ggml.token_type": [3, 1, 1, 9]},
    "a merge of three": {"tokenizer.ggml.merges": ["a b a"]},
    "a merge of what is no token": {"tokenizer.ggml.merges": ["a c"]},
    "merges that are numbers": {"tokenizer.ggml.merges": [1, 2]},
    "an end beyond the tokens": {"tokenizer.ggml.eos_token_id": 4},
    "an end that is a text": {"tokenizer.ggml.eos_token_id": "a"},
    "no end": {"tokenizer.ggml.eos_token_id": None},
    "pieces without scores": {"tokenizer.ggml.model": "llama"},
    "scores that are no numbers": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [float("nan")] * 4},
    "a kind that is not read": {"tokenizer.ggml.model": "bert"},
}


def model(path, **changes):
    """Write GOOD with changes."""
    metadata = GOOD | {key: value for key, value in changes.items() if not key.endswith(".weight")}
    shapes = SHAPES | {key: value for key, value in changes.items() if key.endswith(".weight")}
    writer = library.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if value is not None and key != "general.architecture":
            gguf._add(writer, key, value)
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        if shape:
            writer.add_tensor(name, generator.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shards(header, data=b"", count=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if count is None else count) + header + data


def one(shape=(2,), start=0, stop=8, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


TENSORS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a header beyond the end": shards(b"{}", count=3),
    "a header of 2**63": shards(b"{}", count=2**63),
    "no JSON": shards(b"{'a'}"),
    "no UTF-8": shards(b'{"\xff": 1}'),
    "a list": shards([]),
    "lists in lists": lambda: shards(b"[" * 5_000_000),
    "objects in objects": lambda: shards(b'{"a":' * 1_000_000),
    "a million tensors": lambda: shards(b"{%s}" % b",".join(b'"%d":{}' % i for i in range(1_500_000))),
    "a number of 10,000 digits": shards(
        b'{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}' % (b"9" * 9999)
    ),
    "no place": shards({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "no object": shards({"a": 3}, bytes(8)),
    "a shape below 0": shards({"a": one([-2, -1])}, bytes(8)),
    "a shape of truths": shards({"a": one([True, 2])}, bytes(8)),
    "a shape of halves": shards({"a": one([0.5, 4])}, bytes(8)),
    "a hundred dimensions of 0": shards({"a": one([0] * 100, stop=0)}),
    "numbers of 4,000 digits": lambda: shards({"a": one([10**4000] * 300)}, bytes(8)),
    "half a million dimensions": lambda: shards({"a": one([2] * 500_000)}, bytes(8)),
    "a dtype of a million letters": lambda: shards({"a": one(dtype="F" * 1_000_000)}, bytes(8)),
    "a product of 2**64": shards({"a": one([2**32, 2**32], stop=0)}),
    "an unknown dtype": shards({"a": one(dtype="F4")}, bytes(8)),
    "a dtype that is a list": shards({"a": one(dtype=["F32"])}, bytes(8)),
    "places the wrong way round": shards({"a": one(start=8, stop=0)}, bytes(8)),
    "places beyond the end": shards({"a": one(start=8, stop=16)}, bytes(8)),
    "a place below 0": shards({"a": one(start=-8, stop=0)}, bytes(8)),
    "three places": shards({"a": one() | {"data_offsets": [0, 8, 8]}}, bytes(8)),
    "tensors that overlap": shards({"a": one(), "b": one(start=4, stop=12)}, bytes(12)),
    "a hole": shards({"a": one(), "b": one(start=12, stop=20)}, bytes(20)),
    "more than tensors": shards({"a": one()}, bytes(9)),
    "less than tensors": shards({"a": one()}, bytes(7)),
    "a tensor of two lines": shards({"a\nb": one()}, bytes(8)),
    "a tensor above its folder": shards({"../a": one()}, bytes(8)),
    "a tensor at the root": shards({"/etc/passwd": one()}, bytes(8)),
}


def spelled(**changes):
    said = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE({END: 0, "a": 1, "aa": 2}, [("a", "a")])).to_str())
    special = {"id": 0, "content": END, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    said["added_tokens"] = [special | {"normalized": False}]
    return json.dumps(said | changes).encode()


def pairs(**changes):
    return spelled(model=json.loads(spelled())["model"] | changes)


def cut(pattern):
    return spelled(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    )


def grown(name):
    steps = [{"type": "Replace", "pattern": {"String": "\U0010fffd"}, "content": "\U0010fffd" * 50} for _ in range(9)]
    return {"type": "Sequence", name: steps}


TOKENIZERS = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "lists in lists": b"[" * 1_000_000,
    "an object": b"{}",
    "half of it": spelled()[: len(spelled()) // 2],
    "51 MB": lambda: b" " * 51_000_000,
    "no model": spelled(model=None),
    "a model that there is not": spelled(model={"type": "Oracle"}),
    "a vocabulary that is a list": pairs(vocab=["a"]),
    "an id below 0": pairs(vocab={"a": -1}),
    "an id of 2**40": pairs(vocab={"a": 2**40}),
    "an id of 2**31": pairs(vocab={END: 0, "a": 1, "aa": 2**31}),
    "a merge of what is no token": pairs(merges=[["a", "b"]]),
    "a merge of three": pairs(merges=["a a a"]),
    "what is unknown is no token": pairs(unk_token="b", vocab={"a": 0}, merges=[]),
    "a chance of 2": pairs(dropout=2.0),
    "a pattern that is none": cut("(a"),
    "a set without an end": cut("[a-"),
    "a character map of 4 GB": spelled(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
    "a character map, its name hidden": spelled(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    ).replace(b"Precompiled", rb"\u0050recompiled").replace(b"precompiled", rb"\u0070recompi\u006ced"),
    "a character map that is no text": spelled(normalizer={"type": "Precompiled", "precompiled_charsmap": 7}),
    "texts that grow": spelled(normalizer=grown("normalizers")),
    "answers that grow": spelled(decoder=grown("decoders")),
    "parts of a list": lambda: pairs(vocab=[[] for _ in range(3_000_000)]),
    "parts of an object": lambda: pairs(vocab=dict.fromkeys(range(2_500_000), 1)),
    "a cut that there is not": spelled(pre_tokenizer={"type": "Scissors"}),
    "a padding of 2**40 that cannot be": spelled(padding={"strategy": {"Fixed": 2**40}}),
    "no special token": spelled(added_tokens=[]),
}  # fmt: skip


def made(data):
    return data() if callable(data) else data


CONFIGS = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "lists in lists": lambda: b"[" * 1_000_000,
    "objects in objects": lambda: b'{"a":' * 1_000_000,
    "8 million lists": lambda: b'{"a": [%s[]]}' % (b"[]," * 8_000_000),
    "a million names": lambda: b"{%s}" % b",".join(b'"%d":{}' % i for i in range(1_100_000)),
    "26 MB": lambda: b" " * 26_000_000,
}


def write_all(folder):
    """Write every file; return its path → who reads it."""
    files = {}
    for kind, contents in (("gguf", FRAMES), ("safetensors", TENSORS)):
        for place, data in enumerate(contents.values()):
            path = folder / f"{place}.{kind}"
            path.write_bytes(made(data))
            files[path] = kind
    for place, changes in enumerate(MODELS.values()):
        path = folder / f"model{place}.gguf"
        model(path, **changes)
        files[path] = "gguf"
    for reader, contents in (("tokenizer", TOKENIZERS), ("config", CONFIGS)):
        for place, data in enumerate(contents.values()):
            path = folder / f"{reader}{place}" / f"{reader}.json"
            path.parent.mkdir()
            path.write_bytes(made(data))
            files[path] = reader
    return files


READ = {
    "gguf": gguf.read,
    "safetensors": safetensors.read,
    "tokenizer": lambda path: texts.read(path.parent, {}),
    "config": lambda path: open_place(str(path.parent)),
}


def refused(reader, path):
    with pytest.raises(Refusal) as caught:
        READ[reader](path)
    words = str(caught.value)
    assert str(path) in words and "\n" not in words and words.isprintable() and len(words) < 600, words


def test_the_models_are_good_but_for_what_is_wrong(tmp_path):
    model(tmp_path / "a.gguf")
    assert gguf.read(tmp_path / "a.gguf").tokenizer.encode("ab").tolist() == [3]
    (tmp_path / "a.safetensors").write_bytes(shards({"a": one()}, bytes(8)))
    assert list(safetensors.read(tmp_path / "a.safetensors")) == ["a"]
    (tmp_path / "tokenizer.json").write_bytes(spelled())
    assert texts.read(tmp_path, {}).encode("aaa").tolist() == [2, 1]


@pytest.mark.parametrize("what", FRAMES)
def test_gguf_files_are_refused(what, tmp_path):
    (tmp_path / "a.gguf").write_bytes(made(FRAMES[what]))
    refused("gguf", tmp_path / "a.gguf")


@pytest.mark.parametrize("what", MODELS)
def test_gguf_models_are_refused(what, tmp_path):
    model(tmp_path / "a.gguf", **MODELS[what])
    refused("gguf", tmp_path / "a.gguf")


@pytest.mark.parametrize("what", TENSORS)
def test_safetensors_are_refused(what, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(made(TENSORS[what]))
    refused("safetensors", tmp_path / "a.safetensors")


@pytest.mark.parametrize("what", TOKENIZERS)
def test_tokenizers_are_refused(what, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(made(TOKENIZERS[what]))
    refused("tokenizer", tmp_path / "tokenizer.json")


def test_what_a_tokenizer_says_of_padding_does_not_hold(tmp_path):
    padding = {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": END}
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_bytes(spelled(padding=padding, truncation=truncation))
    assert texts.read(tmp_path, {}).encode("aaa").tolist() == [2, 1]


def test_a_panic_over_a_text_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(cut("(a+)+$"))
    tokenizer = texts.read(tmp_path, {})
    with pytest.raises(Refusal, match=r"^the tokenizer 'place' cannot cut a text \("):
        tokenizer.encode("a" * 40 + "!")


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".h5", ".msgpack"])
def test_pickles_are_refused_unread(ending, tmp_path):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "evil").encode() + b"'\ntR.")
    with pytest.raises(Refusal, match=r"convert it, .* with Transformers: .*save_pretrained"):
        open_place(str(path))
    if ending in folder.PICKLES[:1]:
        (tmp_path / "config.json").write_text("{}")
        path.rename(tmp_path / "pytorch_model.bin")
        with pytest.raises(Refusal, match=r"pytorch_model\.bin is not read.*save_pretrained"):
            open_place(str(tmp_path))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"llama.embedding_length": 2**31 - 1},
        {"llama.embedding_length": 2**31 - 1, "llama.rope.dimension_count": None},
        {"llama.feed_forward_length": 2**31 - 1},
        {"llama.attention.head_count": 2**20, "llama.attention.head_count_kv": 2**20},
        {"llama.attention.head_count": 3},
        {"llama.attention.head_count_kv": 3},
        {"llama.rope.dimension_count": 2**30},
        {"llama.context_length": 2**31 - 1, "blk.0.attn_v.weight": (32, 16)},
        {"llama.attention.layer_norm_rms_epsilon": 1e38, "output_norm.weight": (33,)},
        {"llama.rope.freq_base": 0.0},
    ],
    ids=str,
)
def test_models_that_cannot_be_are_refused(changes, tmp_path):
    model(tmp_path / "a.gguf", **changes)
    with pytest.raises(Refusal):
        open_place(str(tmp_path / "a.gguf"))


NOISE = settings(max_examples=300, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("ending", ["gguf", "safetensors", "json"])
@NOISE
@given(changes=CHANGES, cut=st.floats(0, 1), is_cut=st.booleans())
def test_noise_is_read_or_refused(ending, tmp_path, changes, cut, is_cut):
    good = tmp_path / f"good.{ending}"
    if not good.exists():
        if ending == "gguf":
            model(good)
        else:
            good.write_bytes(
                shards({"a": one(), "b": one(start=8, stop=16)}, bytes(16)) if ending[0] == "s" else spelled()
            )
    data = bytearray(good.read_bytes())
    said = 1600 if ending == "gguf" else len(data)  # what stands before the tensors is what can be wrong
    for place, byte in changes:
        data[int(place * said)] = byte
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data[: int(cut * len(data))] if is_cut else data)
    reader = {"gguf": "gguf", "safetensors": "safetensors", "json": "tokenizer"}[ending]
    try:
        found = READ[reader](path)
    except Refusal:
        return
    if ending == "json":
        found.decode(found.encode("aaa a"))
        return
    tensors = found.tensors if ending == "gguf" else found
    for name, one_ in tensors.items():
        assert one_.read().shape == one_.shape, name


@pytest.mark.parametrize("what", CONFIGS)
def test_configs_are_refused(what, tmp_path):
    (tmp_path / "config.json").write_bytes(made(CONFIGS[what]))
    refused("config", tmp_path / "config.json")


ALONE = """
import json, resource, sys, time
from pathlib import Path
from lm.refusal import Refusal
from lm.text import published
from lm.weights import gguf, safetensors
from lm.weights.place import open_place
import gguf as library

READ = {
    "gguf": gguf.read,
    "safetensors": safetensors.read,
    "tokenizer": lambda path: published.read(path.parent, {}),
    "config": lambda path: open_place(str(path.parent)),
}
FORGET = Path("/proc/self/clear_refs")  # Linux has it

def memory(name):  # in MB; the peak is since it was last forgotten
    status = Path("/proc/self/status").read_text() if FORGET.exists() else f"{name}: 0"
    return int(status.split(f"{name}:")[1].split()[0]) / 1024

resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
for line in sys.stdin:
    reader, path = json.loads(line)
    if FORGET.exists():
        FORGET.write_text("5")
    start, before = time.process_time(), memory("VmRSS")
    try:
        READ[reader](Path(path))
        outcome = "read"
    except Refusal:
        outcome = "refused"
    except BaseException as error:
        outcome = repr(error)
    print(json.dumps([path, outcome, time.process_time() - start, memory("VmHWM") - before]), flush=True)
"""


def test_all_are_refused_within_a_second_and_200_mb(tmp_path):
    files = write_all(tmp_path)
    assert len(files) > 150
    lines = "".join(json.dumps([reader, str(path)]) + "\n" for path, reader in files.items())
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE], input=lines, capture_output=True, text=True, timeout=120, cwd=root, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(files)
    assert not [row for row in found if row[1] != "refused" or row[2] > 1 or row[3] > 200]
