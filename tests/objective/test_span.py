"""Spans: the published counts, the text that comes back, records and special tokens left alone, rows of one shape."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.objective import corruption
from lm.objective.catalog import objective
from lm.objective.corruption import Noise
from lm.refusal import Refusal

SENTINELS = list(range(40, 60))
CASES = {
    "span": {"objective__name": "span"},
    "dense": {"objective__name": "span", "objective__noise_rate": 0.5, "objective__noise_length": 2.0},
    "mixture": {"objective__name": "mixture"},
}


@pytest.fixture(scope="module")
def goal_of(tiny, setting):
    """Return a function: architecture, case, overrides → its objective with a context of 37 tokens."""

    def make(architecture, case, **fields):
        config = tiny(model__architecture=architecture, model__context=37, **CASES[case] | fields)
        return objective(config.objective, setting(config.model))

    return make


def _texts(window):
    """Return the tokens of each of a window's segments but its end-of-text."""
    found = [
        window.ids[(window.segments == number) & (window.ids != 0)] for number in range(1, window.segments.max() + 1)
    ]
    return [text.tolist() for text in found if len(text)]


def _restored(given, wanted):
    """Return what was given with what was wanted in the places of its sentinels, and how long each of these is."""
    spans = {}
    for token in wanted:
        if token in SENTINELS:
            spans[token] = []
        elif token:
            spans[list(spans)[-1]].append(token)
    text = []
    for token in given:
        text += spans[token] if token in SENTINELS else [token]
    assert list(spans) == SENTINELS[: len(spans)] == [token for token in given if token in SENTINELS]
    return text, [len(span) for span in spans.values()]


def _tasks(row, architecture):
    """Return (given, wanted) of each segment of a row."""
    for number in range(
        1, max(row.segments.max(), 0 if row.encoder_segments is None else row.encoder_segments.max()) + 1
    ):
        here = row.segments == number
        if architecture == "encoder_decoder":
            given = row.encoder_inputs[row.encoder_segments == number]
            assert given[-1] == 0 and 0 not in given[:-1]
            assert (row.weights[here] == 1).all()
            wanted = row.targets[here]
            np.testing.assert_array_equal(row.inputs[here], np.append(0, wanted)[: len(wanted)])
            yield given[:-1].tolist(), wanted.tolist()
        elif here.any():
            prefix = row.prefix[here]
            assert not (np.diff(prefix.astype(int)) > 0).any()
            cut = int(prefix.sum()) + (not row.weights[here].any())  # where nothing is wanted, all is given
            ids = np.append(row.inputs[here], row.targets[here][-1])
            np.testing.assert_array_equal(row.inputs[here][1:], row.targets[here][:-1])
            np.testing.assert_array_equal(row.weights[here], np.arange(len(prefix)) >= cut - 1)
            yield ids[:cut].tolist(), ids[cut:].tolist()


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), sample=st.integers(0, 10**9), is_full=st.booleans())
def test_the_text_comes_back(goal_of, random_window, architecture, case, seed, sample, is_full):
    goal = goal_of(architecture, case)
    tokens = goal.length(37) + 1
    window = random_window(tokens, seed, is_full)
    row = goal.shape(window, (seed, sample))
    tasks = list(_tasks(row, architecture))
    assert all(0 not in wanted[:-1] and (not text or text[0] not in SENTINELS) for text, wanted in tasks)
    texts, restored = _texts(window), [_restored(*task)[0] for task in tasks]
    if architecture == "decoder":
        texts = [text for text in texts if len(text) > 1]  # of a single token nothing can be predicted
    lost = sum(map(len, texts)) - sum(map(len, restored))
    assert 0 <= lost <= 0.3 * tokens  # the last tokens of many short records may not fit
    whole, back = [list(itertools.chain(*some)) for some in (texts, restored)]
    assert back == whole[: len(back)]
    assert [len(text) for text in restored[:-1]] == [len(text) for text in texts[: len(restored) - 1]]
    equal = lambda one, two: all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))
    assert equal(row, goal.shape(window, (seed, sample)))
    empty = goal.shape(random_window(tokens, 0)._replace(segments=np.zeros(tokens, np.int32)), (0, 0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), row) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), empty
    )
    assert not empty.weights.any()


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
@pytest.mark.parametrize("case", CASES)
def test_other_keys_give_other_rows(goal_of, architecture, case):
    goal = goal_of(architecture, case)
    window = _whole(goal.length(37) + 1, 0)
    found = {goal.shape(window, key).targets.tobytes() for key in [(0, n) for n in range(20)] + [(1, 0)]}
    assert len(found) > 10


def _whole(tokens, seed):
    """Return a window that is one record without its end-of-text."""
    from lm.data.windows import Window

    ids = np.random.default_rng(seed).integers(1, 40, tokens).astype(np.int32)
    places = np.arange(tokens, dtype=np.int32)
    return Window(ids, np.ones(tokens, np.int32), places, places > 0, 0)


@pytest.mark.parametrize("context", [37, 64, 512])
@pytest.mark.parametrize(("rate", "length"), [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0)])
def test_a_record_fills_the_rows_as_published(goal_of, setting, tiny, context, rate, length):
    """Of T5's compute_input_and_target_lengths: 512 read are 568 of text, and 114 given back."""
    config = tiny(
        model__architecture="encoder_decoder", model__context=context, model__vocabulary=400,
        objective__name="span", objective__noise_rate=rate, objective__noise_length=length,
    )  # fmt: skip
    here = setting(config.model)
    goal = objective(config.objective, here._replace(specials=here.specials._replace(sentinels=tuple(range(200, 400)))))

    def published(tokens):
        noisy = round(tokens * rate)
        spans = round(noisy / length)
        return tokens - noisy + spans + 1, noisy + spans + 1

    tokens = context
    while published(tokens + 1)[0] <= context and published(tokens + 1)[1] <= context:
        tokens += 1
    assert goal.length(context) + 1 == tokens and ((context, rate, length) != (512, 0.15, 3.0) or tokens == 568)
    row = goal.shape(_whole(tokens, 0), (0, 0))
    assert (row.encoder_segments.sum(), row.segments.sum()) == published(tokens)
    assert row.encoder_inputs.shape == (context,) and row.inputs.shape == (published(tokens)[1],)
    assert row.targets[-1] == 0 and row.weights.all()


def test_counts_and_lengths_are_as_asked(goal_of):
    goal = goal_of("encoder_decoder", "span")
    tokens = goal.length(37) + 1
    rows = [goal.shape(_whole(tokens, seed), (0, seed)) for seed in range(500)]
    lengths = [_restored(*task)[1] for row in rows for task in _tasks(row, "encoder_decoder")]
    assert {sum(some) for some in lengths} == {round(0.15 * tokens)} and {len(some) for some in lengths} == {2}
    # five or six noise tokens in two spans: all cuts are equally likely
    firsts = np.bincount([some[0] for some in lengths])[1:]
    assert len(firsts) == round(0.15 * tokens) - 1
    np.testing.assert_allclose(firsts / len(rows), 1 / len(firsts), atol=0.07)


@pytest.mark.parametrize(("is_alone", "masks"), [(True, 4), (False, 10)])
def test_all_masks_of_a_short_text_are_equally_likely(is_alone, masks):
    """Two noise tokens of seven in two spans, text first: alone, noise last, there are 4; else 6·5/2 − 5."""
    generator = np.random.default_rng(0)
    found = {}
    for _ in range(1000 * masks):
        mask = np.zeros(7, int)
        for _, cut in corruption._cuts(7, 2, Noise(0.3, 1.0), generator, is_alone):
            mask[cut] = 1
        found[tuple(mask.tolist())] = found.get(tuple(mask.tolist()), 0) + 1
    assert len(found) == masks and all(mask[0] == 0 and sum(mask) == 2 for mask in found)
    assert not is_alone or all(mask[-1] for mask in found)
    np.testing.assert_allclose(list(found.values()), 1000, atol=130)


def test_short_records_have_their_share(goal_of, random_window):
    goal = goal_of("encoder_decoder", "span")
    tokens = goal.length(37) + 1
    noisy = total = kept = 0
    for seed in range(600):
        window = random_window(tokens, seed)
        texts = _texts(window)
        for task in _tasks(goal.shape(window, (1, seed)), "encoder_decoder"):
            text, lengths = _restored(*task)
            noisy, kept = noisy + sum(lengths), kept + len(text)
        total += sum(map(len, texts))
    assert noisy / total == pytest.approx(0.15, abs=0.015) and kept / total > 0.96


def test_a_mixture_draws_every_denoiser_as_often_as_it_weighs(goal_of):
    found = {"0.15:3=3": 0, "0.25:end=1": 0, "0.5:3=0": 0}
    goal = goal_of("encoder_decoder", "mixture", objective__denoisers=tuple(found))
    tokens = goal.length(37) + 1
    for seed in range(1000):
        ((text, wanted),) = _tasks(goal.shape(_whole(tokens, seed), (2, seed)), "encoder_decoder")
        _, lengths = _restored(text, wanted)
        if lengths == [round(0.25 * tokens)]:
            assert text[-1] == SENTINELS[0]  # one span, at the end
            found["0.25:end=1"] += 1
        else:
            assert sum(lengths) == round(0.15 * tokens)
            found["0.15:3=3"] += 1
    assert found["0.15:3=3"] == pytest.approx(750, abs=60)


def test_records_of_one_segment_share_its_sentinels(goal_of, random_window):
    goal = goal_of("encoder_decoder", "span")
    window = random_window(goal.length(37) + 1, 4)
    assert window.segments.max() > 1
    row = goal.shape(window._replace(segments=np.ones_like(window.segments)), (0, 0))
    read = row.encoder_inputs[row.encoder_segments == 1][:-1].tolist()
    assert row.encoder_segments.max() == 1 and 0 in read
    text, _ = _restored(read, row.targets[row.segments == 1].tolist())
    whole = window.ids[np.flatnonzero(window.ids)[0] :].tolist()
    assert text == whole[: len(text)] and len(text) > 30


def test_too_few_sentinels_and_a_small_context_are_refused(tiny, setting):
    config = tiny(model__architecture="encoder_decoder", objective__name="span", model__context=100)
    here = setting(config.model)
    with pytest.raises(Refusal, match=r"needs 5 sentinels, of which data\.tokenizer has 4"):
        objective(config.objective, here._replace(specials=here.specials._replace(sentinels=(1, 2, 3, 4))))
    with pytest.raises(Refusal, match=r"model\.context is 2"):
        objective(config.objective, here._replace(context=2))
