"""Encoders, and decoders with one: what sees what, packed and padded rows, what is read once, programs alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm import trees
from lm.model import cache as caches
from lm.model.transformer import Tokens, Transformer, forward, initial

ENCODERS = {
    "bert": {
        "wiring": "post",
        "activation": "gelu",
        "token_types": 2,
        "embedding_norm": True,
        "head": "masked",
    },
    "relative, windows": {"positions": "relative", "relative_buckets": 6, "relative_distance": 9, "windows": (2,)},
    "alibi, parallel": {"positions": "alibi", "wiring": "parallel", "value_embeddings": 2},
}
BOTH = {
    "t5": {
        "positions": "relative",
        "relative_buckets": 6,
        "relative_distance": 9,
        "norm": "rms",
        "bias": False,
        "gated": True,
    },
    "learned, post": {"wiring": "post", "embedding_norm": True, "position_offset": 2},
    "rotary, parallel, scalars and values": {
        "family": "llama",
        "wiring": "parallel",
        "qk_norm": True,
        "residual_scalars": True,
        "value_embeddings": 2,
    },
}
ENCODER_LAYERS = 5


class Case(NamedTuple):
    """A model, its random parameters, and its reading of rows: (*arguments of the model, encoder=None) → hidden."""

    model: Transformer
    params: Any
    read: Callable


def _case(tiny, random_params, architecture, options):
    named = {f"model__{name}": value for name, value in options.items()}
    if architecture == "encoder_decoder":
        named["model__encoder_layers"] = ENCODER_LAYERS
    model = Transformer(tiny(model__architecture=architecture, **named).model)
    params = random_params(model)
    read = jax.jit(lambda *rows, **tokens: model.apply({"params": params}, *rows, **tokens).hidden)
    return Case(model, params, read)


@pytest.fixture(scope="module", params=ENCODERS.values(), ids=ENCODERS)
def encoder(request, tiny, random_params):
    return _case(tiny, random_params, "encoder", request.param)


@pytest.fixture(scope="module", params=BOTH.values(), ids=BOTH)
def both(request, tiny, random_params):
    return _case(tiny, random_params, "encoder_decoder", request.param)


def _rows(rows, length, seed=0):
    ids = np.random.default_rng(seed).integers(0, 61, (rows, length)).astype(np.int32)
    return ids, np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)


def _packed(lengths):
    """Return segments and positions of rows that hold records of these lengths, one after another."""
    segments = np.array([np.repeat(np.arange(len(row)) + 1, row) for row in lengths], np.int32)
    positions = np.array([np.concatenate([np.arange(length) for length in row]) for row in lengths], np.int32)
    return segments, positions


def _depends(model, params, ids, *rows, **tokens):
    """Return which position's hidden states have a gradient by which token's embedding; no id comes twice."""
    direction = np.random.default_rng(1).normal(size=24).astype(np.float32)

    def outcome(embedding):
        tree = {"params": params | {"embed": {"embedding": embedding}}}
        return model.apply(tree, ids, *rows, **tokens).hidden[0] @ direction

    by_embedding = jax.jit(jax.jacrev(outcome))(params["embed"]["embedding"])
    return np.abs(by_embedding).max(axis=-1) > 0


def test_an_encoders_token_depends_on_all_of_its_record(encoder):
    """Two records and padding; with windows only as far as those of all three layers together reach, to both sides."""
    ids = np.random.default_rng(0).permutation(61)[None, :13]
    segments = np.array([[1] * 4 + [2] * 7 + [0] * 2])
    positions = np.array([[*range(4), *range(7), 0, 0]])
    depends = _depends(encoder.model, encoder.params, ids, positions, segments)[:, ids[0]]
    windows = encoder.model.config.windows
    reach = 3 * (windows[0] - 1) if windows else 13
    places = np.arange(13)
    is_near = np.abs(places[:, None] - places[None]) <= reach
    expected = (segments[0][:, None] == segments[0][None]) & is_near
    np.testing.assert_array_equal(depends[:11], expected[:11])
    assert bool(windows) == (not is_near[4:11, 4:11].all())


def test_an_encoders_packed_and_padded_rows_are_rows_alone(encoder):
    ids, places = _rows(2, 13)
    lengths = [[4, 5, 4], [6, 2, 5]]
    segments, positions = _packed(lengths)
    packed = encoder.read(ids, positions, segments)
    assert np.abs(encoder.read(ids, places, np.ones_like(ids)) - packed).max() > 0.1
    for row, segment in np.ndindex(2, 3):
        own = np.flatnonzero(segments[row] == segment + 1)
        alone = np.full_like(ids, 7)
        alone[0, : len(own)] = ids[row, own]
        padded = encoder.read(alone, places, np.where(places < len(own), 1, 0))[0, : len(own)]
        np.testing.assert_allclose(packed[row, own], padded, atol=1e-5)
    bare = encoder.read(ids[:1, 4:9], places[:1, :5], np.ones((1, 5), np.int32))
    np.testing.assert_allclose(bare[0], packed[0, 4:9], atol=1e-5)


def test_types_are_looked_up(tiny, random_params):
    """A type adds its vector: those of both made equal, types are nothing; without them all are of type 0."""
    case = _case(tiny, random_params, "encoder", ENCODERS["bert"])
    ids, places = _rows(2, 13)
    ones, types = np.ones_like(ids), np.array([[0] * 5 + [1] * 8, [1] * 13])
    plain, zeros = (case.read(ids, places, ones, types_BT=each) for each in (None, np.zeros_like(ids)))
    np.testing.assert_array_equal(plain, zeros)
    typed = case.read(ids, places, ones, types_BT=types)
    assert np.abs(typed - plain).max() > 0.1
    vectors = case.params["types"]["embedding"]
    moved = case.params | {
        "positions": {"embedding": case.params["positions"]["embedding"] + (vectors[1] - vectors[0])[None]}
    }
    swapped = jax.jit(case.model.apply)({"params": moved}, ids, places, ones).hidden
    np.testing.assert_allclose(swapped[1], typed[1], atol=1e-5)


def test_a_prefix_is_seen_by_all_of_its_segment(tiny, random_params):
    """In a decoder: prefixes of 3 and 2 tokens, in records of 5 and 8."""
    case = _case(tiny, random_params, "decoder", {"family": "llama"})
    ids = np.random.default_rng(0).permutation(61)[None, :13]
    segments, positions = _packed([[5, 8]])
    prefix = np.zeros((1, 13), bool)
    prefix[0, [0, 1, 2, 5, 6]] = True
    depends = _depends(case.model, case.params, ids, positions, segments, prefix_BT=prefix)[:, ids[0]]
    expected = (segments[0][:, None] == segments[0][None]) & (np.tri(13, dtype=bool) | prefix)
    np.testing.assert_array_equal(depends, expected)


def _tokens(lengths, seed=5):
    segments, positions = _packed(lengths)
    return Tokens(_rows(*segments.shape, seed=seed)[0], positions, segments)


def test_a_decoder_sees_its_own_segment_of_the_encoders(both):
    """Three records in the encoder's row, two in the decoder's, of which the second is the encoder's third."""
    ids = np.random.default_rng(0).permutation(61)
    segments, positions = np.array([[1, 1, 1, 3, 3, 3, 3]]), np.array([[0, 1, 2, 0, 1, 2, 3]])
    encoder = _tokens([[4, 2, 5]])._replace(inputs=ids[None, 7:18])
    depends = _depends(both.model, both.params, ids[None, :7], positions, segments, encoder=encoder)
    own = (segments[0][:, None] == segments[0][None]) & np.tri(7, dtype=bool)
    np.testing.assert_array_equal(depends[:, ids[:7]], own)
    np.testing.assert_array_equal(depends[:, ids[7:18]], segments[0][:, None] == encoder.segments[0][None])


def test_packed_and_padded_pairs_are_pairs_alone(both):
    ids, places = _rows(2, 7)
    own, read = [[3, 4], [5, 2]], [[4, 5, 2], [1, 8, 2]]
    segments, positions = _packed(own)
    encoder = _tokens(read)
    packed = both.read(ids, positions, segments, encoder=encoder)
    other = encoder._replace(inputs=encoder.inputs[::-1])
    assert np.abs(both.read(ids, positions, segments, encoder=other) - packed).max() > 0.1
    for row, segment in np.ndindex(2, 2):
        mine = np.flatnonzero(segments[row] == segment + 1)
        theirs = np.flatnonzero(encoder.segments[row] == segment + 1)
        alone, source = np.full_like(ids, 7), np.full_like(encoder.inputs, 9)
        alone[0, : len(mine)], source[0, : len(theirs)] = ids[row, mine], encoder.inputs[row, theirs]
        places_BS = np.broadcast_to(np.arange(11, dtype=np.int32), source.shape)
        padded = Tokens(source, places_BS, np.where(places_BS < len(theirs), 1, 0))
        hidden = both.read(alone, places, np.where(places < len(mine), 1, 0), encoder=padded)[0, : len(mine)]
        np.testing.assert_allclose(packed[row, mine], hidden, atol=1e-5)
    bare = Tokens(encoder.inputs[:1, :4], encoder.positions[:1, :4], np.ones((1, 4), np.int32))
    hidden = both.read(ids[:1, :3], places[:1, :3], np.ones((1, 3), np.int32), encoder=bare)
    np.testing.assert_allclose(hidden[0], packed[0, :3], atol=1e-5)


def test_cached_is_whole_and_the_encoder_reads_once(both):
    """Texts of 4 and 6 tokens for the encoder; decoders of 2 and 3 tokens, then step by step without an encoder."""
    model, params = both.model, both.params
    ids, positions = _rows(2, 7)
    places_BS = np.broadcast_to(np.arange(6), (2, 6))
    encoder = Tokens(_rows(2, 6, seed=3)[0], places_BS, (places_BS < np.array([[4], [6]])).astype(np.int32))
    whole = both.read(ids, positions, np.ones_like(ids), encoder=encoder)
    cached = jax.jit(lambda params, *rows, **tokens: model.apply({"params": params}, *rows, **tokens))
    out = cached(params, ids[:, :3], positions[:, :3], cache=caches.empty(model.config, 2, 9), encoder=encoder)
    lengths = np.array([2, 3])
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(out.hidden[row, :length], whole[row, :length], atol=1e-5)
    without = jax.tree.map_with_path(  # what only the encoder's part of a pass needs is not read again
        lambda path, leaf: leaf * (0 if "encoder/" in (name := _name(path)) or _is_of_memory(name) else 1), params
    )
    for _ in range(4):
        out = cached(without, ids[[0, 1], lengths][:, None], lengths[:, None], cache=out.cache)
        np.testing.assert_allclose(out.hidden[:, 0], whole[np.array([0, 1]), lengths], atol=1e-5)
        lengths = lengths + 1


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_of_memory(name):
    return "cross_attention/key" in name or "cross_attention/value" in name


def test_gradients_are_finite_where_there_is_nothing_to_read(tiny, random_params):
    """The decoder's second segment has no tokens in the encoder, and its third row none at all."""
    both = _case(tiny, random_params, "encoder_decoder", BOTH["t5"])
    ids, _ = _rows(3, 7)
    segments, positions = _packed([[3, 4], [5, 2], [4, 3]])
    encoder = _tokens([[6], [6], [6]])
    encoder = encoder._replace(segments=encoder.segments * np.array([[1], [1], [0]]))

    def loss(params):
        hidden = both.model.apply({"params": params}, ids, positions, segments, encoder=encoder).hidden
        return jnp.sum(jnp.square(hidden))

    gradients = jax.jit(jax.grad(loss))(both.params)
    for path, leaf in zip(trees.paths(gradients), jax.tree.leaves(gradients), strict=True):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_every_program_gives_the_same(tiny, random_params, random_batch):
    """Two layers that read what three have read: unrolled, in loops, recomputed."""
    batch, results, programs = random_batch(), [], []
    for unroll, remat in ((3, "none"), (1, "none"), (1, "full")):
        config = tiny(model__architecture="encoder_decoder", model__layers=2, model__encoder_layers=3)
        options = {"unroll": unroll, "remat": remat}
        model = Transformer(ml_collections.FrozenConfigDict(config.model.to_dict() | options))
        loss = lambda params, model=model: jnp.sum(jnp.sin(forward(model)(params, batch, None).hidden))
        lowered = jax.jit(jax.value_and_grad(loss)).lower(random_params(model))
        programs.append(lowered.as_text())
        if (unroll, remat) != (1, "none"):
            results.append(lowered.compile()(random_params(model)))
    assert [text.count("stablehlo.while") for text in programs] == [0, 4, 4]
    assert programs[1].count("stablehlo.dot_general") < programs[2].count("stablehlo.dot_general")
    (loss, gradients), (other_loss, other_gradients) = results
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    leaves = jax.tree.leaves(gradients)
    largest = max(float(np.abs(leaf).max()) for leaf in leaves)
    for path, leaf, other in zip(trees.paths(gradients), leaves, jax.tree.leaves(other_gradients), strict=True):
        # the gradient of the keys' biases is 0 but for rounding: a softmax does not see them
        floor = 1e-6 * largest if path.endswith("key/bias") else 1e-7
        np.testing.assert_allclose(leaf, other, atol=1e-5 * float(np.abs(leaf).max()) + floor, err_msg=path)


def test_only_an_encoder_decoder_has_two_stacks(tiny):
    stacks = {"decoder": {"decoder"}, "encoder": {"encoder"}, "encoder_decoder": {"encoder", "decoder"}}
    for architecture, names in stacks.items():
        layers = 5 if architecture == "encoder_decoder" else None
        model = Transformer(tiny(model__architecture=architecture, model__encoder_layers=layers).model)
        shapes = jax.eval_shape(lambda model=model: initial(model, jax.random.key(0)))
        assert {"encoder", "decoder"} & set(shapes) == names
        for name in names:
            block = shapes[name]["block"]
            assert block["attention_norm"]["scale"].shape[0] == (5 if name == "encoder" and layers else 3)
            assert ("cross_attention" in block) == (name == "decoder" and architecture == "encoder_decoder")
