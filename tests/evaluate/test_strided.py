"""Long records by windows that overlap: every token once, beside one forward pass for each token by itself."""

import jax
import numpy as np
import pytest

from lm.data.store import Split
from lm.evaluate import heldout, strided
from lm.model.transformer import Transformer, forward
from lm.objective.losses import logits_of

LENGTHS = {"one": [17], "short": [1, 3, 13], "mixed": [1, 40, 13, 14, 29, 2], "many": [7] * 31 + [53]}


def split_of(lengths, seed=0):
    """Return a Split in two shards of records of so many tokens, each opened by 0."""
    generator = np.random.default_rng(seed)
    records = [np.append(0, generator.integers(1, 61, length - 1)) for length in lengths]
    ids = np.append(np.concatenate(records), 0).astype(np.uint16)
    cut = len(ids) // 3
    offsets = np.cumsum([0, *lengths[:-1]])
    return Split((ids[:cut], ids[cut:]), np.array([0, cut]), offsets, len(ids), len(ids))


class Part:
    """What is asked of a Part."""

    def __init__(self, split):
        self.valid = split


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("context", [1, 2, 13, 64])
@pytest.mark.parametrize("stride", [1, 2, 5, 12, 13, 64])
def test_every_token_is_scored_once_and_has_context(name, context, stride):
    split = split_of(LENGTHS[name])
    if stride > context:
        return
    ids = split.read(np.arange(split.tokens))
    scored = np.zeros(split.tokens, int)
    before = np.zeros(split.tokens, int)
    for chunk in strided.chunks([Part(split)], context, stride, size=3):
        batch = strided.batch(split, chunk, 3)
        assert batch.inputs.shape == (3, chunk.length) and chunk.length <= context
        assert np.all(batch.weights.sum(axis=1) <= chunk.count)
        assert not np.any(batch.weights[len(chunk.windows) :]) and not np.any(batch.segments[len(chunk.windows) :])
        for row, (start, stop, _) in enumerate(chunk.windows):
            read = np.arange(start, stop)
            np.testing.assert_array_equal(batch.inputs[row, : len(read)], ids[read])
            np.testing.assert_array_equal(batch.targets[row, : len(read)], ids[read + 1])
            np.testing.assert_array_equal(batch.positions[row, : len(read)], np.arange(len(read)))
            np.testing.assert_array_equal(batch.segments[row], np.arange(chunk.length) < len(read))
            places = np.flatnonzero(batch.weights[row])
            scored[start + places + 1] += 1
            before[start + places + 1] = places + 1  # tokens that this one is predicted from
    np.testing.assert_array_equal(scored, np.arange(split.tokens) > 0)
    for start, length in zip(split.offsets, LENGTHS[name], strict=True):
        possible = np.arange(1, length + 1)  # of the record, up to the end-of-text that closes it
        mine = before[start + 1 : start + length + 1]
        assert np.all(mine <= possible) and np.all(mine >= np.minimum(possible, context - stride + 1))


@pytest.fixture(scope="module")
def measured(tiny, random_params):
    """Return a function: lengths of records, stride → the numbers, of a random model of context 13."""
    config = tiny(model__positions="rotary")
    model = Transformer(config.model)
    params = random_params(model)
    score = strided.scorer(forward(model), config.objective, logits_of(config.model), usual=7)

    def measure(lengths, stride, say=lambda words: None):
        parts = [Part(split_of(mine, seed)) for seed, mine in enumerate(lengths)]
        rows = strided.rows(parts, 13, stride, 5, say)
        named = [(f"part {number}", part.valid.bytes) for number, part in enumerate(parts)]
        return heldout.measure(score, params, rows, named, is_whole=True)

    def slowly(lengths):
        """Return nats and whether it is the likeliest of each token, by a pass that reads the 13 before it alone."""
        found = []
        run = jax.jit(lambda ids, places: model.apply({"params": params}, ids, places, ids * 0 + 1))
        for seed, mine in enumerate(lengths):
            split = split_of(mine, seed)
            ids = split.read(np.arange(split.tokens))
            for start, length in zip(split.offsets, mine, strict=True):
                for place in range(start + 1, start + length + 1):
                    read = ids[max(start, place - 13) : place][None]
                    row = np.pad(read, ((0, 0), (0, 13 - read.size)))  # what comes after is not seen
                    out = run(row, np.arange(13)[None])
                    logits = np.asarray(out.hidden[0, read.size - 1] @ out.unembed, np.float64)[:61]
                    total = np.log(np.sum(np.exp(logits)))
                    found.append((total - logits[ids[place]], logits.argmax() == ids[place], ids[place] == 7))
        return np.array(found)

    return measure, slowly


@pytest.mark.parametrize("lengths", [[[40, 3, 1, 14]], [[29, 13], [2, 17]]])
def test_stride_one_is_each_token_by_itself(measured, lengths):
    measure, slowly = measured
    nats, correct, usual = slowly(lengths).T
    values = measure(lengths, 1)
    assert values["loss"] == pytest.approx(nats.mean(), abs=1e-5)
    assert values["accuracy"] == correct.mean() and values["baseline_accuracy"] == usual.mean()
    assert values["bits_per_byte"] == pytest.approx(nats.sum() / np.log(2) / sum(sum(mine) + 1 for mine in lengths))
    assert abs(measure(lengths, 13)["loss"] - nats.mean()) > 1e-3


@pytest.mark.parametrize("stride", [1, 4, 13])
def test_records_no_longer_than_a_window_do_not_depend_on_the_stride(measured, stride):
    measure, slowly = measured
    lengths = [[13, 5, 1]]
    assert measure(lengths, stride)["loss"] == pytest.approx(slowly(lengths)[:, 0].mean(), abs=1e-5)


def test_how_far_it_is(measured, monkeypatch):
    heard = []
    monkeypatch.setattr(strided, "_EVERY", 0.0)
    measured[0]([[40, 3]], 4, heard.append)
    assert heard[0] == "9 windows in 3 batches"
    assert heard[-1] == "100% of 195 tokens read, 0:00 left"
