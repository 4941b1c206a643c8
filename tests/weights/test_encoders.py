"""How models with an encoder are published: words of several fields, labels, older names, heads tied or not."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lm.refusal import Refusal
from lm.weights import config
from lm.weights.place import open_place, save_place


@pytest.mark.parametrize(
    ("name", "theirs", "fields"),
    [
        ("bert", {}, {"head": "masked", "pooler": False, "token_types": 2, "wiring": "post", "tied": True}),
        ("bert", {"architectures": ["BertModel"]}, {"head": "none", "pooler": True, "labels": None}),
        ("bert", {"architectures": ["BertForSequenceClassification"]}, {"head": "classify", "labels": 2}),
        (
            "bert",
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}},
            {"labels": 3, "pooler": True},
        ),
        ("roberta", {"type_vocab_size": 2}, {"token_types": 2, "position_offset": 2, "context": 59}),
        ("t5", {}, {"encoder_layers": 3, "layers": 2, "activation": "relu", "gated": False, "scaled_head": True}),
        ("t5", {"num_decoder_layers": None}, {"encoder_layers": 3, "layers": 3, "attention_scale": 1.0}),
        ("t5_v1_1", {}, {"activation": "gelu_tanh", "gated": True, "scaled_head": False}),
        (
            "t5",  # as older versions of Transformers wrote v1.1
            {
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
                "dense_act_fn": None,
                "is_gated_act": None,
                "scale_decoder_outputs": None,
            },
            {"activation": "gelu_tanh", "gated": True, "scaled_head": False, "tied": False},
        ),
    ],
)
def test_configs_say_the_fields(golden, name, theirs, fields):
    section = config.from_theirs(golden(name).config | theirs).model
    assert {field: section[field] for field in fields} == fields
    assert config.from_theirs(config.to_theirs(section)).model == section


@pytest.mark.parametrize(
    ("name", "theirs", "words"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key': only models"),
        ("bert", {"is_decoder": True}, "is_decoder is True"),
        ("bert", {"architectures": ["BertForTokenClassification"]}, "architectures is 'BertForTokenClassification'"),
        ("roberta", {"pad_token_id": 0}, "pad_token_id is 0: only models with 1"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act is 'relu': those read are gelu"),
        ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj is 'gated-mish': those read are relu"),
        ("t5", {"num_layers": 10**9}, "num_layers is 1000000000"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder is False"),
    ],
)
def test_what_is_not_read_is_refused(golden, name, theirs, words):
    with pytest.raises(Refusal, match=words):
        config.from_theirs(golden(name).config | theirs)


def _write(folder, settings, tensors):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


def test_bert_as_first_published_opens(golden, tmp_path):
    """Norms called gamma and beta; a pooler and a head of next sentences that the masked model has no use for."""
    read = golden("bert")
    older = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    tensors = {older(name): tensor for name, tensor in read.tensors.items()}
    tensors |= {"bert.pooler.dense.weight": np.zeros((24, 24), np.float32)}
    tensors |= {"cls.seq_relationship.weight": np.zeros((2, 24), np.float32)}
    tensors |= {"bert.embeddings.position_ids": np.arange(59)[None]}
    tensors |= {"cls.predictions.decoder.bias": read.tensors["cls.predictions.bias"]}
    bundle = open_place(_write(tmp_path / "older", read.config, tensors))
    save_place(bundle, str(tmp_path / "ours"))
    written = load_file(tmp_path / "ours" / "model.safetensors")
    for name, tensor in read.tensors.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_a_bare_bert_has_no_prefix(golden, tmp_path):
    read = golden("bert")
    tensors = {name.removeprefix("bert."): tensor for name, tensor in read.tensors.items() if name.startswith("bert.")}
    pooler = {"pooler.dense.weight": np.eye(24, dtype=np.float32), "pooler.dense.bias": np.ones(24, np.float32)}
    settings = read.config | {"architectures": ["BertModel"]}
    bundle = open_place(_write(tmp_path / "bare", settings, tensors | pooler))
    np.testing.assert_array_equal(bundle.params["pooler"]["kernel"], np.eye(24))
    with pytest.raises(Refusal, match=r"lack pooler\.dense\.bias, pooler\.dense\.weight"):
        open_place(_write(tmp_path / "less", settings, tensors))


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_head_that_is_there_unties_an_unscaled_t5(golden, tmp_path, is_equal):
    """Its config calls it tied either way, as Transformers 5 writes it."""
    read = golden("t5_v1_1")
    assert read.config["tie_word_embeddings"] is True and "lm_head.weight" in read.tensors
    tensors = dict(read.tensors)
    if is_equal:
        tensors["lm_head.weight"] = tensors["shared.weight"]
    section = open_place(_write(tmp_path / "theirs", read.config, tensors)).config.model
    assert section.tied == is_equal and not section.scaled_head
