"""Windows against a slow, obvious version: every token is a target once, and no record sees another."""

import numpy as np
import pytest

from lm.data.store import Split
from lm.data.windows import Windows

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


CONTEXTS = (2, 3, 5, 11, 32, 33, 101)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("cross_records", [False, True])
@pytest.mark.parametrize("shard_sizes", [(), (7, 13)])
def test_windows_are_those_of_the_slow_version(context, cross_records, shard_sizes):
    windows = Windows(split_of(RECORDS, shard_sizes), context, cross_records)
    expected = slow(RECORDS, context, cross_records)
    assert windows.all == len(expected)
    for index, rows in enumerate(expected):
        window = windows.window(index)
        assert all(field.dtype == np.int32 and field.shape == (context + 1,) for field in window)
        assert np.stack(window, -1).tolist() == [list(row) for row in rows]


@pytest.mark.parametrize("context", CONTEXTS)
def test_every_token_after_the_first_is_a_target_once(context):
    split = split_of(RECORDS)
    windows = Windows(split, context, False)
    targets = [window.ids[1:][window.segments[1:] > 0] for window in map(windows.window, range(windows.all))]
    assert np.concatenate(targets).tolist() == split.read(1, split.tokens).tolist()
    assert windows.whole == sum(bool(len(target) == context) for target in targets)


def test_a_record_sees_itself_alone_and_counts_from_its_beginning():
    split = split_of(RECORDS)
    windows = Windows(split, 11, False)
    for index in range(windows.all):
        ids, segments, positions = windows.window(index)
        real = segments > 0
        begins = np.flatnonzero(real & (positions == 0))
        assert begins[0] == 0 and np.all(ids[begins[1:]] == END)  # each later segment opens with an end-of-text
        assert segments[begins].tolist() == list(range(1, len(begins) + 1))
        assert not np.any(ids[~real]) and not np.any(positions[~real])


def test_crossing_records_changes_segments_and_positions_but_no_ids():
    split = split_of(RECORDS)
    alone, crossing = (Windows(split, 13, cross_records).window(0) for cross_records in (False, True))
    assert alone.ids.tolist() == crossing.ids.tolist()
    assert alone.segments.max() > 1 and crossing.segments.max() == 1
    assert crossing.positions.tolist() == list(range(14)) != alone.positions.tolist()


@pytest.mark.parametrize("context", [5, 31, 101])
def test_the_last_window_is_padded_and_those_after_it_are_nothing_else(context):
    windows = Windows(split_of(RECORDS), context, False)
    missing = windows.all * context - (windows.split.tokens - 1)
    last = windows.window(windows.all - 1)
    assert missing > 0 and windows.whole == windows.all - 1
    assert np.count_nonzero(last.segments == 0) == missing and last.segments[0] == 1
    for index in (windows.all, windows.all + 7):
        after = windows.window(index)
        assert all(field.shape == (context + 1,) and not field.any() for field in after)


def test_a_split_that_fills_its_windows_has_no_padding():
    windows = Windows(split_of(RECORDS), 32, False)
    assert windows.split.tokens == 33
    assert windows.all == windows.whole == 1 and windows.window(0).segments.min() == 1
