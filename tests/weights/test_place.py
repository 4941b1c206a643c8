"""PLACEs: what opens, in which dtype and where; what is written; what is refused."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file

from lm import transfer, trees
from lm.model.transformer import Transformer
from lm.refusal import Refusal
from lm.text.learn import learn
from lm.text.published import made
from lm.text.tokenizer import load
from lm.weights import published
from lm.weights.place import Bundle, describe, open_place, save_place


@pytest.mark.parametrize(
    ("stored", "asked", "kept"),
    [
        ("float32", "", "float32"),
        ("bfloat16", "", "bfloat16"),
        ("float16", "", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
    ],
)
def test_parameters_keep_their_dtype(golden, tmp_path, stored, asked, kept):
    read = golden("gpt2")
    stored = np.dtype(ml_dtypes.bfloat16 if stored == "bfloat16" else stored)
    tensors = {name: array.astype(stored) for name, array in read.tensors.items()}
    bundle = open_place(str(read._replace(tensors=tensors).write(tmp_path / "one")), dtype=asked)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(bundle.params)} == {kept}
    assert bundle.config.model.parameter_dtype == kept and bundle.config.model.dtype == "float32"
    save_place(bundle, str(tmp_path / "two"))
    written = load_file(tmp_path / "two" / "model.safetensors")
    for name, array in tensors.items():
        np.testing.assert_array_equal(written[name], array.astype(kept), err_msg=name, strict=True)


def test_each_device_gets_its_part(golden, tmp_path):
    place = str(golden("llama").write(tmp_path / "one"))
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("a", "b"))

    def sharding(path, leaf):
        spec = (None, "a", "b") if leaf.ndim > 2 else ("b",) if path == "embed/embedding" else ()
        sizes = dict(zip("ab", (2, 2), strict=True))
        spec = [axis if axis and leaf.shape[i] % sizes[axis] == 0 else None for i, axis in enumerate(spec)]
        return NamedSharding(mesh, PartitionSpec(*spec))

    whole, parts = open_place(place).params, open_place(place, sharding=sharding).params
    trees.mapped(lambda path, leaf: leaf.sharding == sharding(path, leaf) or pytest.fail(path), parts)
    kernel = parts["decoder"]["block"]["attention"]["query"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 12, 2, 10)}
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_a_description_reads_no_tensor(golden, tmp_path, monkeypatch):
    place = golden("gpt2").write(tmp_path / "one")
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("a tensor was read"))
    found = describe(str(place))
    assert found.config.model.width == 24 and found.tokenizer is None


def test_a_file_opens_with_the_config_beside_it(golden, tmp_path):
    place = golden("gpt2").write(tmp_path / "one")
    (place / "model.safetensors").rename(place / "mine.safetensors")
    assert open_place(str(place / "mine.safetensors")).config.model.family == "gpt2"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "is not a PLACE (there is none)"),
        ("empty", "is not a PLACE (it has no config.json)"),
        ("text.txt", "is not a PLACE (it is a file)"),
        ("model.bin", "model.bin is not read: such a file may run any program"),
        ("empty@3", "is not a PLACE"),
    ],
)
def test_what_is_no_place_is_refused(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    for file in ("text.txt", "model.bin"):
        (tmp_path / file).write_text("")
    with pytest.raises(Refusal) as refusal:
        open_place(str(tmp_path / name))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("there", "", "is there already; name another"),
        ("new.safetensors", "", "name a folder, or a file that ends in .gguf"),
        ("new.bin", "", "name a folder, or a file that ends in .gguf"),
        ("new", "q8_0", "is not written as q8_0: it must be one of float32, bfloat16"),
        ("new.gguf", "int8", "is not written as int8: it must be one of float32, bfloat16, float16, q8_0"),
    ],
)
def test_what_cannot_be_written_is_refused(golden, tmp_path, name, dtype, words):
    bundle = open_place(str(golden("gpt2").write(tmp_path / "there")))
    with pytest.raises(Refusal) as refusal:
        save_place(bundle, str(tmp_path / name), dtype=dtype)
    assert words in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(golden, tmp_path, tokenizer_json):
    place = golden("llama").write(tmp_path / "one")
    (place / "tokenizer.json").write_text(tokenizer_json)
    said = json.loads(tokenizer_json)
    said["model"]["vocab"]["more"] = 61
    assert describe(str(place)).tokenizer.size == 61
    (place / "tokenizer.json").write_text(json.dumps(said))
    for opened in (open_place, describe):
        with pytest.raises(Refusal, match="has ids up to 61, and the model a vocabulary of 61"):
            opened(str(place))


def test_ids_are_kept_without_a_tokenizer(golden, tmp_path):
    read = golden("gpt2")
    place = read._replace(config=read.config | {"eos_token_id": 7, "bos_token_id": None}).write(tmp_path / "one")
    save_place(open_place(str(place)), str(tmp_path / "two"))
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["eos_token_id"] == 7 and config["bos_token_id"] is None


def test_what_says_nothing_to_us_is_kept(golden, tmp_path, tokenizer_json):
    read = golden("llama")
    config = read.config | {"initializer_range": 0.7, "eos_token_id": [2, 5], "id2label": {"0": "x"}}
    place = read._replace(config=config).write(tmp_path / "one")
    (place / "tokenizer.json").write_text(tokenizer_json)
    (place / "generation_config.json").write_text('{"eos_token_id": [2, 5], "temperature": 0.3}')
    (place / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}')
    bundle = open_place(str(place))
    assert bundle.tokenizer.end == 2 and bundle.tokenizer.ends == {2, 5}
    bundle.tokenizer.save(tmp_path / "ours")
    assert load(tmp_path / "ours").ends == {2, 5}
    save_place(bundle, str(tmp_path / "two"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "two" / name).read_text() == (place / name).read_text()
    again = open_place(str(tmp_path / "two"))
    assert again.tokenizer.ends == {2, 5}
    assert again.tokenizer.published.keys() == bundle.tokenizer.published.keys()
    for name in ("config.json", "generation_config.json"):
        texts = [json.loads((folder / name).read_text()) for folder in (place, tmp_path / "two")]
        for key in ("initializer_range", "eos_token_id", "id2label", "temperature"):
            assert (key in texts[0]) == (key in texts[1]) and (key not in texts[0] or texts[0][key] == texts[1][key])


@pytest.mark.parametrize("said", [2**40, [2, 2**70]])
def test_an_end_beyond_all_ids_is_refused(golden, tmp_path, tokenizer_json, said):
    read = golden("llama")
    place = read._replace(config=read.config | {"eos_token_id": said}).write(tmp_path / "one")
    (place / "tokenizer.json").write_text(tokenizer_json)
    with pytest.raises(Refusal, match=r"has no token with the id 1.*, which eos_token_id is: ids are below 16,777,216"):
        open_place(str(place))


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 100_000, "{}" + "," * (1 << 21)], ids=["list", "cut", "deep", "many"]
)
def test_a_tokenizer_config_that_is_none_is_refused(golden, tmp_path, tokenizer_json, text):
    place = golden("llama").write(tmp_path / "one")
    (place / "tokenizer.json").write_text(tokenizer_json)
    (place / "tokenizer_config.json").write_text(text)
    with pytest.raises(Refusal, match=r"tokenizer_config.json beside .* is no JSON object of at most 1,048,576 parts"):
        open_place(str(place))


def test_a_config_says_what_ends_a_text_if_generation_alone_does(golden, tmp_path, tokenizer_json):
    """As of a GGUF file, whose ids are those of generation."""
    place = golden("llama").write(tmp_path / "one")
    config = {name: value for name, value in golden("llama").config.items() if not name.endswith("_token_id")}
    (place / "config.json").write_text(json.dumps(config))
    (place / "tokenizer.json").write_text(tokenizer_json)
    (place / "generation_config.json").write_text('{"eos_token_id": [2, 5], "bos_token_id": 1}')
    save_place(open_place(str(place)), str(tmp_path / "two"))
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["eos_token_id"] == [2, 5] and config["bos_token_id"] == 1


@pytest.mark.parametrize("said, start", [({}, 0), ({"decoder_start_token_id": 2}, 2)], ids=["unsaid", "said"])
def test_a_decoder_starts_as_its_config_says(golden, tmp_path, tokenizer_json, said, start):
    read = golden("t5")
    config = {name: value for name, value in read.config.items() if name != "decoder_start_token_id"}
    place = read._replace(config=config | {"eos_token_id": 1} | said).write(tmp_path / "one")
    (place / "tokenizer.json").write_text(tokenizer_json)
    bundle = open_place(str(place))
    assert bundle.tokenizer.specials.start == start
    bundle.tokenizer.save(tmp_path / "ours")
    assert load(tmp_path / "ours").specials == bundle.tokenizer.specials
    save_place(bundle, str(tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "config.json").read_text())["decoder_start_token_id"] == start


@pytest.mark.parametrize("start", [2**40, -1, True, "2", [2]])
def test_a_start_that_is_no_token_is_refused(tokenizer_json, start):
    with pytest.raises(Refusal, match=r"has no token .*, which decoder_start_token_id is\."):
        made({"tokenizer.json": tokenizer_json}, {"eos_token_id": 2, "decoder_start_token_id": start}, "a")


def test_our_decoder_starts_elsewhere_as_here(tiny, random_params, tmp_path):
    """One that has learned to start from the end of text, its tokenizer having no padding token."""
    config = tiny(model__family="t5", model__vocabulary=257, model__encoder_layers=2, model__kv_heads=4)
    model = Transformer(config.model)
    ours = Bundle(config, model, random_params(model), learn(tiny(data__tokenizer="byte").data, []))
    save_place(ours, str(tmp_path / "one"))
    written = json.loads((tmp_path / "one" / "config.json").read_text())
    assert [written[f"{name}_token_id"] for name in ("decoder_start", "pad", "eos", "bos")] == [256] * 4
    assert open_place(str(tmp_path / "one")).tokenizer.specials.start == 256 == ours.tokenizer.specials.start


def test_positions_that_others_would_not_count_are_refused(tiny, golden, random_params, tmp_path, tokenizer_json):
    """Transformers' create_position_ids_from_input_ids counts what is not padding, in RoBERTa the token 1."""
    config = tiny(model__family="roberta", model__vocabulary=257, model__kv_heads=4)
    model = Transformer(config.model)
    ours = Bundle(config, model, random_params(model), learn(tiny(data__tokenizer="byte").data, []))
    with pytest.raises(Refusal, match="counts no positions of the token 1, which is padding there; in 'byte' it is"):
        save_place(ours, str(tmp_path / "one"))
    texts = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "abcdefghijklmnop"]
    words = learn(tiny(data__tokenizer="wordpiece:258").data, texts)
    with pytest.raises(Refusal, match=r"in 'wordpiece:258' it is '\[UNK\]'"):
        save_place(ours._replace(tokenizer=words), str(tmp_path / "one"))
    assert not list(tmp_path.iterdir())
    theirs = golden("roberta").write(tmp_path / "theirs")
    (theirs / "tokenizer.json").write_text(tokenizer_json)  # whose token 1 is <s>
    with pytest.raises(Refusal, match="in 'place' it is '<s>'"):
        save_place(open_place(str(theirs)), str(tmp_path / "two"))
    (theirs / "tokenizer.json").write_text(tokenizer_json.replace("<s>", "<>").replace("<pad>", "<s>"))
    save_place(open_place(str(theirs)), str(tmp_path / "two"))


def test_ids_beyond_all_are_of_no_token(tokenizer_json):
    tokenizer = made({"tokenizer.json": tokenizer_json}, {"eos_token_id": 2}, "a")
    assert [tokenizer.spelled(index) for index in (2, -1, 2**40, 2**70)] == ["</s>", None, None, None]


def test_long_work_is_told(monkeypatch):
    said = []
    monkeypatch.setattr(published, "_EVERY", -1.0)
    array = np.zeros(5, np.float32)
    tensors = {name: published.Tensor((5,), "float32", lambda: array) for name in "abcd"}
    told = published.told(tensors, "reading x", said.append)
    assert told["b"].read() is array and told["a"].read() is array and told["a"].read() is array
    assert said == [f"reading x: {share}% of 0.00 GB" for share in (25, 50, 50)]


@pytest.mark.parametrize("name", ["model", "model.gguf"])
def test_a_place_may_be_on_an_object_store(golden, tmp_path, far, monkeypatch, name):
    monkeypatch.setattr(transfer, "NEAR", tmp_path / "near")
    bundle = open_place(str(golden("llama").write(tmp_path / "one")))
    place = str(far / name)
    said = []
    save_place(bundle, place, said.append)
    assert any(line.startswith(f"sending to {far}") for line in said)
    jax.tree.map(np.testing.assert_array_equal, open_place(place).params, bundle.params)
    if name == "model":
        jax.tree.map(np.testing.assert_array_equal, open_place(f"{place}/model.safetensors").params, bundle.params)
    assert describe(place).config.model == bundle.config.model
    with pytest.raises(Refusal, match="is there already"):
        save_place(bundle, place)
    with pytest.raises(Refusal, match=r"not a PLACE \(there is none"):
        open_place(f"{far}/nothing")
