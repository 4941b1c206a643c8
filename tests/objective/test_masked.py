"""Masked tokens: what is chosen, what becomes of it, and that the text comes back."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.objective.catalog import objective
from lm.objective.losses import Logits, cross_entropy
from lm.refusal import Refusal

MASK = 60


@pytest.fixture(scope="module")
def goal_of(tiny, setting):
    """Return a function: overrides → the objective of a model of 31 tokens."""

    def make(**fields):
        config = tiny(**{"objective__name": "masked", "model__architecture": "encoder", "model__context": 31} | fields)
        return objective(config.objective, setting(config.model))

    return make


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), sample=st.integers(0, 10**9), is_full=st.booleans())
def test_a_row_holds_the_window_and_hides_only_text(goal_of, random_window, seed, sample, is_full):
    goal = goal_of()
    window = random_window(goal.length(31) + 1, seed, is_full)
    row = goal.shape(window, (seed, sample))
    np.testing.assert_array_equal(row.targets, window.ids)
    chosen = row.weights == 1
    assert set(row.weights.tolist()) <= {0.0, 1.0}
    np.testing.assert_array_equal(np.where(chosen, row.targets, row.inputs), window.ids)  # the text comes back
    may = window.is_scored & (window.ids != 0)
    assert not (chosen & ~may).any() and chosen.sum() == min(may.sum(), max(1, round(0.15 * may.sum())))
    assert ((row.inputs < 40) | (row.inputs == MASK)).all() and (row.inputs[chosen] > 0).all()
    np.testing.assert_array_equal(row.segments, window.segments)
    np.testing.assert_array_equal(row.positions, window.positions)
    assert row.source == 3 and row.inputs.dtype == np.int32 and row.weights.dtype == np.float32
    assert [len(field) for field in row[:5]] == [31] * 5
    again, other = goal.shape(window, (seed, sample)), goal.shape(window, (seed, sample + 1))
    assert all(np.array_equal(one, two) for one, two in zip(row[:5], again[:5], strict=True))
    assert may.sum() < 20 or row.inputs.tolist() != other.inputs.tolist()


@pytest.mark.parametrize(("rate", "random", "kept"), [(0.15, 0.1, 0.1), (0.4, 0.5, 0.2), (0.3, 0.0, 0.0)])
def test_shares_are_as_asked(goal_of, random_window, rate, random, kept):
    goal = goal_of(objective__mask_rate=rate, objective__mask_random=random, objective__mask_kept=kept)
    window = random_window(31, 5)
    rows = [goal.shape(window, (0, sample)) for sample in range(3000)]
    chosen, inputs = np.stack([row.weights for row in rows]) > 0, np.stack([row.inputs for row in rows])
    may = window.is_scored & (window.ids != 0)
    np.testing.assert_allclose(chosen[:, may].mean(axis=0), round(rate * may.sum()) / may.sum(), atol=0.04)
    now, before = inputs[chosen], np.broadcast_to(window.ids, inputs.shape)[chosen]
    strange = (now != MASK) & (now != before)  # one in 39 random tokens is the one before
    np.testing.assert_allclose((now == MASK).mean(), 1 - random - kept, atol=0.02)
    np.testing.assert_allclose(strange.mean(), random * 38 / 39, atol=0.02)
    if random:
        assert set(now[strange].tolist()) == set(range(1, 40))


def test_the_loss_is_that_of_all_positions(goal_of, random_window):
    from lm.model.transformer import Output

    goal = goal_of()
    rows = [goal.shape(random_window(31, seed, is_full=False), (0, seed)) for seed in range(5)]
    batch = type(rows[0])(*(None if field[0] is None else np.stack(field) for field in zip(*rows, strict=True)))
    draw = np.random.default_rng(0).normal
    out = Output(jnp.asarray(draw(size=(5, 31, 7))), jnp.asarray(draw(size=(7, 64))), None, jnp.asarray(draw(size=64)))
    for key in ("a key", None):
        total, weight, found = goal.loss(lambda params, batch, key: out, None, batch, key)
        whole = cross_entropy(
            out.hidden, out.unembed, batch.targets, batch.weights, Logits(61), 999, bias_V=out.unembed_bias,
            is_counting=key is None,
        )  # fmt: skip
        np.testing.assert_allclose([total, weight], whole[:2], rtol=1e-5)
        for one, other in zip(found[:3], whole[2][:3], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_without_a_mask_token_it_is_refused(tiny, setting):
    config = tiny(objective__name="masked", model__architecture="encoder")
    here = setting(config.model)
    with pytest.raises(Refusal, match=r"data\.mask_token"):
        objective(config.objective, here._replace(specials=here.specials._replace(mask=None)))
