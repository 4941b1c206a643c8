"""Windows against a slow, obvious version: every token is a target once, and no record sees another."""

import jax
import numpy as np
import pytest

from lm.config import defaults
from lm.config.resolve import bind, resolve
from lm.data import store, windows
from lm.data.facts import facts
from lm.data.packing import PACKINGS, Plan
from lm.data.store import Split
from lm.data.windows import Windows
from lm.model.transformer import Transformer, forward
from lm.objective.catalog import objective

END = 99
RECORDS = ([3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3], [8, 4], [6, 2, 6, 4, 3, 3, 8])


def split_of(records, shard_sizes=()):
    """Return a split in memory, cut into shards of the given sizes and one of the rest."""
    tokens, offsets = [], []
    for record in records:
        offsets.append(len(tokens))
        tokens += [END, *record]
    tokens.append(END)
    cuts = np.cumsum([0, *shard_sizes])
    shards = tuple(np.split(np.asarray(tokens, np.uint16), cuts[1:]))
    return Split(shards, cuts, np.asarray(offsets, np.int64), len(tokens), bytes=0)


def slow(records, context, cross_records):
    """Return all windows as lists of (id, segment, position), padded with (0, 0, 0)."""
    stream = [(END, 0)]
    for number, record in enumerate(records):
        stream[-1] = (END, number)  # the end-of-text before a record belongs to it
        stream += [(token, number) for token in record] + [(END, number)]
    windows = []
    for start in range(0, len(stream) - 1, context):
        window, owner = [], None
        for token, record in stream[start : start + context + 1]:
            if not window:
                segment, position = 1, 0
            elif record != owner and not cross_records:
                segment, position = segment + 1, 0
            else:
                position += 1
            owner = record
            window.append((token, segment, position))
        windows.append(window + [(0, 0, 0)] * (context + 1 - len(window)))
    return windows


def windows_of(split, context, cross_records=False, packing="split"):
    plan = PACKINGS[packing](split.offsets, split.tokens, context)
    return Windows(split, plan, context, cross_records, source=7)


def slow_packed(split, windows):
    """Yield what the stretches of each window make, as lists of (id, segment, position, is scored)."""
    stream, begins = split.read(np.arange(split.tokens)).tolist(), set(split.offsets.tolist())
    for index in range(windows.plan.all):
        rows = []
        for start, stop in windows.plan.stretches(index).T.tolist():
            if rows and start in begins:  # the end-of-text that closes one record opens the next
                rows[-1] = (END, rows[-2][1] + 1, 0, True)
            else:
                rows.append((stream[start], rows[-1][1] + 1 if rows else 1, 0, False))
            segment = rows[-1][1]
            rows += [(stream[place], segment, place - start, True) for place in range(start + 1, stop)]
            opens = stop in begins
            rows.append((stream[stop], segment + opens, 0 if opens else stop - start, True))
        yield rows + [(0, 0, 0, False)] * (windows.context + 1 - len(rows))


CONTEXTS = (2, 3, 5, 11, 32, 33, 101)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("cross_records", [False, True])
@pytest.mark.parametrize("shard_sizes", [(), (7, 13)])
def test_windows_are_those_of_the_slow_version(context, cross_records, shard_sizes):
    windows = windows_of(split_of(RECORDS, shard_sizes), context, cross_records)
    expected = slow(RECORDS, context, cross_records)
    assert windows.plan.all == len(expected)
    for index, rows in enumerate(expected):
        window = windows.unit(index)
        fields = window.ids, window.segments, window.positions
        assert all(field.dtype == np.int32 and field.shape == (context + 1,) for field in fields)
        assert np.stack(fields, -1).tolist() == [list(row) for row in rows]
        assert window.is_scored.tolist() == [False] + [segment > 0 for _, segment, _ in rows[1:]]
        assert window.source == 7


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("shard_sizes", [(), (7, 13)])
def test_packed_windows_are_those_of_the_slow_version(context, shard_sizes):
    split = split_of(RECORDS, shard_sizes)
    windows, crossing = (windows_of(split, context, crosses, "first_fit") for crosses in (False, True))
    for index, rows in enumerate(slow_packed(split, windows)):
        window = windows.unit(index)
        assert [list(row) for row in zip(*window[:4], strict=True)] == [list(row) for row in rows]
        assert all(field.dtype == np.int32 for field in window[:3])
        other, count = crossing.unit(index), sum(segment > 0 for _, segment, _, _ in rows)
        assert other.ids.tolist() == window.ids.tolist() and other.is_scored.tolist() == window.is_scored.tolist()
        assert other.positions.tolist() == list(range(count)) + [0] * (context + 1 - count)
        assert other.segments.tolist() == [1] * count + [0] * (context + 1 - count)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_token_after_the_first_is_a_target_once(context, packing):
    split = split_of(RECORDS)
    windows = windows_of(split, context, packing=packing)
    targets = [window.ids[window.is_scored] for window in map(windows.unit, range(windows.plan.all))]
    assert sorted(np.concatenate(targets)) == sorted(split.read(np.arange(1, split.tokens)))
    if packing == "split":
        assert np.concatenate(targets).tolist() == split.read(np.arange(1, split.tokens)).tolist()
        assert windows.plan.whole == sum(bool(len(target) == context) for target in targets)


@pytest.mark.parametrize("context", [5, 11, 13])
def test_packing_changes_no_loss(tiny, random_params, setting, context):
    """The loss of packed windows is that of each piece in a window of its own, to each token."""
    config = tiny(model__vocabulary=128, model__context=context, model__layers=1)
    model, goal = Transformer(config.model), objective(config.objective, setting(config.model))
    params = random_params(model)

    @jax.jit
    def losses(batch):
        alone = lambda weight_T: batch._replace(weights=batch.weights * weight_T[None])
        of_one = lambda weight_T: goal.loss(forward(model), params, alone(weight_T), None)[2].nats
        return jax.lax.map(of_one, np.eye(context)).T  # each target's own loss

    def scored(plan):
        windows = Windows(split, plan, context, False, 0)
        rows = [goal.shape(windows.unit(index), None) for index in range(plan.all)]
        batch = jax.tree.map(lambda *fields: np.stack(fields), *rows)
        found = {}
        for index, (row, weights) in enumerate(zip(np.asarray(losses(batch)), batch.weights, strict=True)):
            places = [range(start, stop) for start, stop in plan.stretches(index).T.tolist()]
            flat = [place + 1 for some in places for place in some]
            found |= dict(zip(flat, row[weights > 0], strict=True))
        return found

    split = split_of(RECORDS)
    packed = PACKINGS["first_fit"](split.offsets, split.tokens, context)
    pieces = [piece for index in range(packed.all) for piece in packed.stretches(index).T]
    separate = Plan(len(pieces), len(pieces), lambda index: pieces[index][:, None])
    assert packed.all < separate.all
    ours, theirs = scored(packed), scored(separate)
    assert sorted(ours) == sorted(theirs) == list(range(1, split.tokens)) and min(ours.values()) > 0
    np.testing.assert_allclose([ours[place] for place in theirs], list(theirs.values()), rtol=2e-5)


def test_a_record_sees_itself_alone_and_counts_from_its_beginning():
    split = split_of(RECORDS)
    windows = windows_of(split, 11)
    for index in range(windows.plan.all):
        ids, segments, positions, _, _ = windows.unit(index)
        real = segments > 0
        begins = np.flatnonzero(real & (positions == 0))
        assert begins[0] == 0 and np.all(ids[begins[1:]] == END)  # each later segment opens with an end-of-text
        assert segments[begins].tolist() == list(range(1, len(begins) + 1))
        assert not np.any(ids[~real]) and not np.any(positions[~real])


def test_crossing_records_changes_segments_and_positions_but_no_ids():
    split = split_of(RECORDS)
    alone, crossing = (windows_of(split, 13, cross_records).unit(0) for cross_records in (False, True))
    assert alone.ids.tolist() == crossing.ids.tolist()
    assert alone.segments.max() > 1 and crossing.segments.max() == 1
    assert crossing.positions.tolist() == list(range(14)) != alone.positions.tolist()


@pytest.mark.parametrize("context", [5, 31, 101])
def test_the_last_window_is_padded_and_those_after_it_are_nothing_else(context):
    windows = windows_of(split_of(RECORDS), context)
    missing = windows.plan.all * context - (windows.split.tokens - 1)
    last = windows.unit(windows.plan.all - 1)
    assert missing > 0 and windows.plan.whole == windows.plan.all - 1
    assert np.count_nonzero(last.segments == 0) == missing and last.segments[0] == 1
    for packing in PACKINGS:
        windows = windows_of(split_of(RECORDS), context, packing=packing)
        for index in (windows.plan.all, windows.plan.all + 7):
            after = windows.unit(index)
            assert all(field.shape == (context + 1,) and not field.any() for field in after[:4])


def test_a_split_that_fills_its_windows_has_no_padding():
    windows = windows_of(split_of(RECORDS), 32)
    assert windows.split.tokens == 33
    assert windows.plan.all == windows.plan.whole == 1 and windows.unit(0).segments.min() == 1


@pytest.mark.parametrize("packing", ["split", "first_fit"])
def test_two_epochs_of_a_run_are_two(tmp_path, packing):
    """Of train.epochs=2, the steps hold every window that is trained on twice, but for a part of a step."""
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{"x" * 77}"}}\n' for _ in range(300)))
    config = defaults()
    config.data.source, config.data.tokenizer, config.data.packing = f"files:{tmp_path}/a.jsonl", "byte", packing
    config.data.store, config.model.context, config.train.epochs = str(tmp_path), 128, 2.0
    config = bind(resolve(config), vocabulary=257)
    opened = store.open_store(config.data)
    train = windows.planned(opened.parts, "train", config.data, 128)
    steps = bind(config, tokens=windows.epoch(opened.parts, train, 128)).train.steps
    (part,) = facts(opened, train, steps * config.data.batch_size)["parts"]
    assert abs(part["epochs"] - 2) < 16 / part["windows"]
