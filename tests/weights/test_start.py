"""Runs that start from a PLACE: their config, what conflicts, and weights padded for them."""

import jax
import numpy as np
import pytest

from lm import trees
from lm.config import defaults
from lm.config.resolve import flatten, resolve
from lm.model.transformer import Transformer, initial
from lm.refusal import Refusal
from lm.weights import start
from lm.weights.bundle import Bundle, shapes
from lm.weights.place import open_place, save_place


@pytest.fixture
def place(golden, tmp_path, tokenizer_json):
    """Return a function: family → a folder with its tiny model and a tokenizer."""

    def make(family="llama"):
        folder = golden(family).write(tmp_path / family)
        (folder / "tokenizer.json").write_text(tokenizer_json)
        return str(folder)

    return make


def begun(place, **fields):
    """Return the config of a run from a PLACE, but for some fields, resolved."""
    config = defaults()
    given = {"init.from_place": place, "train.steps": 3} | {name.replace("__", "."): v for name, v in fields.items()}
    config.update_from_flattened_dict(given)
    return resolve(start.started(config))


def test_model_and_tokenizer_are_the_places(place):
    where = place()
    config = begun(where, model__dtype="bfloat16", model__dropout=0.1, model__remat="full")
    theirs = flatten(open_place(where).config.model)
    own = {"dtype": "bfloat16", "dropout": 0.1, "remat": "full", "vocabulary_multiple": 128}
    assert flatten(config.model) == theirs | own
    assert config.data.tokenizer == "place"
    assert start.tokenizer(config).size == 61 and start.tokenizer(config).kind == "place"


def test_a_run_without_a_place_is_as_it_was(tiny):
    config = tiny()
    assert start.started(config) is config and start.tokenizer(config) is None


@pytest.mark.parametrize(
    ("family", "fields", "words"),
    [
        ("llama", {"model__width": 32}, "model.width is 32, but init.from_place .* has 24: leave it out"),
        ("llama", {"model__norm": "layer"}, "model.norm is 'layer', but init.from_place .* has 'rms'"),
        ("llama", {"model__context": 60}, "model.context is 60, but init.from_place .* has 59"),
        ("gpt2", {"model__context": 32}, "model.context is 32, but init.from_place .* has 59"),
        ("llama", {"data__tokenizer": "byte"}, "data.tokenizer is 'byte', but init.from_place .* has a tokenizer"),
        ("llama", {"data__end_token": "x"}, "data.end_token is 'x', but init.from_place"),
    ],
)
def test_conflicts_are_refused(place, family, fields, words):
    with pytest.raises(Refusal, match=words):
        begun(place(family), **fields)


def test_what_agrees_is_allowed(place):
    config = begun(place(), model__width=24, model__context=31, model__norm="rms")
    assert config.model.context == 31


def test_a_place_without_a_tokenizer_is_refused(golden, tmp_path):
    config = begun(str(golden("llama").write(tmp_path / "bare")))
    with pytest.raises(Refusal, match="it has no tokenizer, which a run needs"):
        start.tokenizer(config)


@pytest.mark.parametrize("fields", [{}, {"init__from_place": "x", "data__tokenizer": "char"}])
def test_the_tokenizer_of_a_place_is_for_runs_from_one(tiny, fields):
    with pytest.raises(Refusal, match="only there"):
        tiny(**{"data__tokenizer": "place"} | fields)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_are_padded_for_the_run(place, family):
    where = place(family)
    config = begun(where, model__parameter_dtype="bfloat16")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes(Transformer(config.model))
    )
    found = start.params(config, template, print)
    plain = dict(zip(*((f(open_place(where).params)) for f in (trees.paths, jax.tree.leaves)), strict=True))

    def check(path, leaf, like):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (like.shape, like.dtype, here), path
        wanted = np.asarray(plain[path])
        cut = tuple(slice(0, size) for size in wanted.shape)
        np.testing.assert_array_equal(np.asarray(leaf)[cut], wanted.astype(leaf.dtype), err_msg=path)
        assert np.asarray(leaf).astype(np.float32).sum() == np.asarray(leaf)[cut].astype(np.float32).sum()

    jax.tree.map(check, trees.mapped(lambda path, _: path, found), found, template)
    assert found["embed"]["embedding"].shape == (128, 24)


_CLASSES = {"objective__name": "classify", "data__source": "embedded:kinds"}
_NEW = {"head/kernel", "head/bias"}
_POOLER = {"pooler/kernel", "pooler/bias"}


def _leaves(tree):
    return dict(zip(trees.paths(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))


@pytest.mark.parametrize(
    ("theirs", "labels", "fields", "new"),
    [
        ({"family": "bert"}, "ab", {}, _NEW | _POOLER),
        ({"family": "bert"}, "ab", {"model__pooler": False}, _NEW),
        ({"family": "bert", "head": "none", "pooler": True}, "ab", {"model__head": "classify"}, _NEW),
        ({"family": "bert", "head": "classify", "labels": 3}, "abc", {}, set()),
        ({"family": "bert", "head": "classify", "labels": 3}, "abc", {"model__labels": 3}, set()),
        ({"family": "bert", "head": "classify", "labels": 3}, "ab", {}, _NEW),
        ({"family": "llama", "tied": False}, "ab", {}, {"head/kernel"}),
    ],
)
def test_a_classifier_has_all_of_the_place_but_another_head(
    tiny, random_params, tokenizer_json, tmp_path, theirs, labels, fields, new
):
    given = {f"model__{name}": value for name, value in theirs.items()}
    before = tiny(**given, model__kv_heads=4)
    params = random_params(Transformer(before.model))
    save_place(Bundle(before, Transformer(before.model), params, None), str(tmp_path / "place"), lambda words: None)
    (tmp_path / "place" / "tokenizer.json").write_text(tokenizer_json)
    config = begun(str(tmp_path / "place"), **_CLASSES, objective__labels=tuple(labels), seed=5, **fields)
    assert (config.model.head, config.model.labels) == ("classify", len(labels))
    here, said = jax.sharding.SingleDeviceSharding(jax.devices()[1]), []
    model = Transformer(config.model)
    placed = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    found = start.params(config, jax.tree.map(placed, shapes(model)), said.append)
    assert all(leaf.sharding == here for leaf in jax.tree.leaves(found))
    old, drawn = _leaves(params), _leaves(initial(model, jax.random.key(5)))
    assert trees.paths(found) == list(drawn)
    for path, leaf in _leaves(found).items():
        rows = 61 if path == "embed/embedding" else None  # the others pad the vocabulary
        wanted = drawn if path in new else old
        np.testing.assert_allclose(leaf[:rows], wanted[path][:rows], rtol=1e-6, err_msg=path)
    named = [words for words in said if "drawn by the seed" in words]
    assert len(named) == (1 if new else 0)
    assert all(path in named[0] for path in new)
