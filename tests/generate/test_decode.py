"""Reading a prompt and adding to it, on the device."""

import jax
import numpy as np
import pytest

from lm.generate import decode, prepare, samplers


@pytest.fixture(scope="module")
def bundle(byte_bundle):
    found = byte_bundle(model__family="llama")
    return found._replace(params=prepare.ready(found.model.config, found.params))


def _rows(*texts):
    longest = max(map(len, texts))
    ids = np.array([list(text.encode()) + [0] * (longest - len(text)) for text in texts], np.int32)
    return ids, np.array([len(text) for text in texts], np.int32)


def test_prefill_gives_the_next_tokens_log_probabilities(byte_bundle):
    """Rows of 3 and 7 tokens; what pads them on the right is not read. Stacked and ready parameters."""
    bundle = byte_bundle(model__family="llama")
    lengths = np.array([3, 7], np.int32)
    ids = np.random.default_rng(0).integers(0, 257, (2, 8)).astype(np.int32)
    other = np.where(np.arange(8) < lengths[:, None], ids, 5)
    ready = prepare.ready(bundle.model.config, bundle.params)
    reading = decode.prefill(bundle.model, ready, ids, lengths, slots=13)
    np.testing.assert_array_equal(reading.text.lengths, lengths)
    np.testing.assert_array_equal(reading.text.ids[1], [*ids[1, :7], *[0] * 6])
    same = decode.prefill(bundle.model, bundle.params, other, lengths, slots=13)
    np.testing.assert_allclose(reading.logits, same.logits, atol=1e-5)
    positions = np.broadcast_to(np.arange(8), ids.shape)
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, positions, np.ones_like(ids))
    logits = np.asarray(out.hidden @ out.unembed)[[0, 1], lengths - 1, :257]
    np.testing.assert_allclose(reading.logits, logits, atol=1e-5)
    assert reading.logits.dtype == np.float32


def test_copies_lie_side_by_side(bundle):
    one = decode.prefill(bundle.model, bundle.params, *_rows("Hi", "Hello"), slots=9)
    three = decode.prefill(bundle.model, bundle.params, *_rows("Hi", "Hello"), slots=9, copies=3)
    np.testing.assert_array_equal(three.text.lengths, [2, 2, 2, 5, 5, 5])
    np.testing.assert_allclose(three.logits, np.repeat(one.logits, 3, axis=0), atol=1e-6)


def test_extend_in_one_go_or_two_is_the_same(bundle, sampling):
    """Token number n depends on (key, n) alone, so that the host may cut where it likes."""
    settings = samplers.settings(sampling(temperature=1.0), bundle.tokenizer)
    keys = jax.random.split(jax.random.key(3), 2)
    read = lambda: decode.prefill(bundle.model, bundle.params, *_rows("Hi", "Hell"), slots=13)
    add = lambda reading, count: decode.extend(bundle.model, bundle.params, reading, keys, settings, count)
    whole, halves = add(read(), 8), add(add(read(), 3), 5)
    np.testing.assert_array_equal(whole.text.lengths, [10, 12])
    np.testing.assert_array_equal(whole.text.ids, halves.text.ids)
    np.testing.assert_allclose(whole.scores, halves.scores, atol=1e-5)
    assert whole.scores[0, 2:10].all() and not whole.scores[0, :2].any() and not whole.scores[0, 10:].any()


def test_a_row_that_is_full_or_over_stays_as_it_is(bundle, sampling):
    """The first has room for 8 tokens, the second for 3, the third is over."""
    settings = samplers.settings(sampling(), bundle.tokenizer)
    reading = decode.prefill(bundle.model, bundle.params, *_rows("Hi", "Hello 1", "Hi"), slots=10)
    reading = reading._replace(is_over=np.array([False, False, True]))
    keys = jax.random.split(jax.random.key(3), 3)
    done = decode.extend(bundle.model, bundle.params, reading, keys, settings, 20)
    np.testing.assert_array_equal(done.text.lengths, [10, 10, 2])
    assert bytes(np.asarray(done.text.ids[1, :7]).tolist()) == b"Hello 1" and not np.asarray(done.text.ids[2, 2:]).any()


def test_every_token_of_every_row_is_another_draw(bundle, sampling):
    """A model without preference, so that only the key decides."""
    params = jax.tree.map(np.zeros_like, bundle.params)
    reading = decode.prefill(bundle.model, params, *_rows("H", "H"), slots=9)
    settings = samplers.settings(sampling(temperature=1.0), bundle.tokenizer)
    keys = jax.random.split(jax.random.key(1), 2)
    reading = decode.extend(bundle.model, params, reading, keys, settings, 8)
    assert len(np.unique(reading.text.ids[:, 1:])) > 12
    np.testing.assert_allclose(reading.scores[:, 1:], np.full((2, 8), -np.log(257)), rtol=1e-6)
