"""Reading a prompt and adding to it, on the device."""

import jax
import numpy as np

from lm.generate import decode


def test_prefill_gives_the_next_tokens_log_probabilities(byte_bundle):
    """Rows of 3 and 7 tokens; what pads them on the right is not read."""
    bundle = byte_bundle(model__family="llama")
    lengths = np.array([3, 7], np.int32)
    ids = np.random.default_rng(0).integers(0, 257, (2, 8)).astype(np.int32)
    other = np.where(np.arange(8) < lengths[:, None], ids, 5)
    reading = decode.prefill(bundle.model, bundle.params, ids, lengths)
    np.testing.assert_array_equal(reading.lengths, lengths)
    same = decode.prefill(bundle.model, bundle.params, other, lengths)
    np.testing.assert_allclose(reading.logits, same.logits, atol=1e-5)
    positions = np.broadcast_to(np.arange(8), ids.shape)
    out = jax.jit(bundle.model.apply)({"params": bundle.params}, ids, positions, np.ones_like(ids))
    logits = np.asarray(out.hidden @ out.unembed)[[0, 1], lengths - 1, :257]
    np.testing.assert_allclose(reading.logits, jax.nn.log_softmax(logits), atol=1e-5)
    assert reading.logits.dtype == np.float32


def test_extend_in_one_go_or_two_is_the_same(byte_bundle, sampling):
    """Token number n depends on (key, n) alone, so that the host may cut where it likes."""
    bundle, section = byte_bundle(model__family="llama"), sampling(temperature=1.0)
    ids, lengths = np.array([[72, 105, 0, 0], [72, 101, 108, 108]], np.int32), np.array([2, 4], np.int32)
    read = lambda: decode.prefill(bundle.model, bundle.params, ids, lengths)
    add = lambda count, reading, first: decode.extend(
        bundle.model, section, count, bundle.params, reading, jax.random.key(3), first
    )
    _, whole, scores = add(8, read(), 0)
    reading, begun, begun_scores = add(4, read(), 0)
    assert reading.lengths.tolist() == [6, 8]
    _, rest, rest_scores = add(4, reading, 4)
    np.testing.assert_array_equal(whole, np.concatenate([begun, rest], axis=1))
    np.testing.assert_allclose(scores, np.concatenate([begun_scores, rest_scores], axis=1), atol=1e-5)


def test_every_token_of_every_row_is_another_draw(byte_bundle, sampling):
    """A model without preference, so that only the key decides."""
    bundle = byte_bundle(model__family="llama")
    params = jax.tree.map(np.zeros_like, bundle.params)
    reading = decode.prefill(bundle.model, params, np.array([[72], [72]], np.int32), np.array([1, 1], np.int32))
    _, tokens, scores = decode.extend(bundle.model, sampling(temperature=1.0), 8, params, reading, jax.random.key(0), 0)
    assert len(np.unique(tokens)) > 12
    np.testing.assert_allclose(scores, np.full((2, 8), -np.log(257)), rtol=1e-6)
