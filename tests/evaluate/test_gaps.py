"""Gaps filled and spans restored: against a model read step by step, and in words."""

import jax
import numpy as np
import pytest

from lm.evaluate import gaps, samples
from lm.evaluate.gaps import Piece
from lm.model.transformer import Transformer, forward
from lm.objective.catalog import objective
from lm.text.tokenizer import Specials
from lm.weights.bundle import Bundle

SPECIALS = Specials(61, end=0, start=0, mask=60, sentinels=tuple(range(40, 60)), unwritten=(0, *range(40, 61)))


def _bundle(config, setting, random_params):
    model = Transformer(config.model)
    return Bundle(config, model, random_params(model), setting(config.model).tokenizer)


def _rows(config, setting, random_window, count):
    goal = objective(config.objective, setting(config.model))
    tokens = goal.length(config.model.context) + 1
    return [goal.shape(random_window(tokens, seed), (0, seed)) for seed in range(count)]


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_spans_are_said_greedily_up_to_the_end(tiny, setting, random_params, random_window, architecture):
    """As by a model that reads all so far anew, without a cache, for every token."""
    sizes = {"model__context": 29, "model__layers": 2, "model__tied": False, "model__family": "llama"}
    config = tiny(model__architecture=architecture, objective__name="span", **sizes)
    bundle = _bundle(config, setting, random_params)
    rows = _rows(config, setting, random_window, 2)
    found = [task for row in rows for task in gaps.tasks(row)]
    said = gaps.answers(bundle, found)
    is_pair = architecture == "encoder_decoder"
    places = np.arange(29, dtype=np.int32)
    padded = lambda ids: np.array([[*ids, *[0] * (29 - len(ids))]], np.int32)
    before = lambda stop: (places < stop)[None].astype(np.int32)
    run = jax.jit(lambda batch: forward(bundle.model)(bundle.params, batch, None))
    for (given, wanted), answer in zip(found, said, strict=True):
        count = len(wanted)
        ids = [SPECIALS.start] if is_pair else list(given)
        start = len(ids)
        while len(ids) < start + count and (len(ids) == start or ids[-1] != SPECIALS.end):
            batch = rows[0]._replace(inputs=padded(ids), segments=before(len(ids)), positions=places[None])
            if is_pair:
                batch = batch._replace(
                    encoder_inputs=padded(given), encoder_segments=before(len(given)), encoder_positions=places[None]
                )
            else:
                batch = batch._replace(prefix=before(len(given)) > 0)
            out = run(batch)
            ids.append(int(np.argmax((out.hidden[0, len(ids) - 1] @ out.unembed)[:61])))
        assert answer[:count] == [token for token in ids[start:] if token != SPECIALS.end]
    assert len({tuple(answer) for answer in said}) > 1


def test_masked_places_have_the_likeliest_tokens(tiny, setting, random_params, random_window):
    config = tiny(model__architecture="encoder", objective__name="masked", model__context=23, model__layers=1)
    bundle = _bundle(config, setting, random_params)
    rows = _rows(config, setting, random_window, 2)
    for row, text in zip(rows, gaps.masked(bundle, rows), strict=True):
        assert [(piece.truth or piece.ids)[0] for piece in text] == row.targets.tolist()
        hidden = np.array([piece.truth is not None for piece in text])
        np.testing.assert_array_equal(hidden, row.weights > 0)
        alone = jax.tree.map(lambda field: field[None], row)
        out = forward(bundle.model)(bundle.params, alone, None)
        likeliest = np.argmax((out.hidden[0] @ out.unembed)[:, :61], axis=1)
        assert [piece.ids[0] for piece in text if piece.truth] == likeliest[hidden].tolist()


def test_a_span_is_what_stands_behind_its_sentinel():
    assert gaps.cut([40, 1, 2, 41, 42, 3, 40, 9, 0], SPECIALS) == {40: [1, 2], 41: [], 42: [3]}
    assert gaps.cut([5, 6, 41, 7], SPECIALS) == {41: [7]} and gaps.cut([], SPECIALS) == {}


TEXT = [Piece([1]), Piece([2, 3], [2, 3]), Piece([4]), Piece([5], [6, 7]), Piece([], [8])]


def test_only_spans_that_are_whole_count():
    found = gaps.exact([TEXT, [Piece([9]), Piece([8], [8])]], usual=8)
    assert found == {"span_exact_match": 2 / 4, "baseline_span_exact_match": 2 / 4}


def test_gaps_are_marked_with_what_was_there(tiny, setting):
    letters = setting(tiny().model).tokenizer
    assert gaps.spelled(TEXT, letters) == "A⟦BC⟧D⟦E‖FG⟧⟦‖H⟧"


@pytest.mark.parametrize(
    ("name", "architecture"), [("masked", "encoder"), ("span", "encoder_decoder"), ("mixture", "decoder")]
)
def test_samples_show_held_out_rows(tiny, setting, random_params, random_window, name, architecture):
    config = tiny(model__architecture=architecture, objective__name=name, model__context=23, model__layers=1)
    bundle = _bundle(config, setting, random_params)
    shown = samples.draw(bundle, _rows(config, setting, random_window, samples.ROWS), "")
    assert len(shown) == samples.ROWS and all(" right\n" in text for text in shown)
    assert any("⟦" in text for text in shown)


def test_samples_of_classes_and_answers(tiny, setting, random_params):
    from lm.data.pairs import Pair

    pair = Pair(np.array([1, 2], np.int32), np.array([3], np.int32), 0)
    config = tiny(model__architecture="encoder_decoder", objective__name="seq2seq", data__source="embedded:summaries")
    bundle = _bundle(config, setting, random_params)
    goal = objective(config.objective, setting(config.model))
    (text,) = samples.draw(bundle, [goal.shape(pair, (0, 0))], "")
    assert text.startswith("── AB\n→ ") and text.endswith("\ntarget: C")
    config = tiny(
        model__architecture="encoder", objective__name="classify", data__source="embedded:kinds",
        objective__labels=("C", "D"),
    )  # fmt: skip
    bundle = _bundle(config, setting, random_params)
    goal = objective(config.objective, setting(config.model))
    (text,) = samples.draw(bundle, [goal.shape(pair, (0, 0))], "")
    assert text in ("── AB\n→ ⟦C⟧", "── AB\n→ ⟦D‖C⟧")
