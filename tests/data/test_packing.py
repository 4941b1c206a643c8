"""Packing plans against slow, obvious versions: what is scored, what is cut, what stays free."""

import time

import numpy as np
import pytest

from lm.data import packing

CONTEXTS = (2, 3, 7, 31, 101)


def lengths_of(count, most, seed=7):
    """Return random numbers of tokens that a record scores, its closing end-of-text among them."""
    return np.random.default_rng(seed).integers(1, most + 1, count)


def plan_of(name, lengths, context):
    offsets = np.cumsum(lengths) - lengths
    return packing.PACKINGS[name](offsets, int(lengths.sum()) + 1, context)


def stretches(plan):
    """Return each window's stretches as (start, stop)."""
    return [list(zip(*plan.stretches(index).tolist(), strict=True)) for index in range(plan.all)]


def slow_first_fit(lengths, context, most_open):
    """Return the plan of windows that a person would make: each piece into the first open window with room."""
    windows = []
    slots = [(0, None)] * most_open  # room and window of those that are open; at first none is
    start = 0
    for length in lengths:
        for place in range(0, length, context):
            piece = min(context, length - place)
            size = min(context, piece + (place > 0))
            fitting = [slot for slot, (room, _) in enumerate(slots) if room >= size]
            slot = fitting[0] if fitting else min(range(most_open), key=lambda slot: slots[slot][0])
            if not fitting:
                windows.append([])
                slots[slot] = context, windows[-1]
            room, window = slots[slot]
            window.append((start + place, start + place + piece))
            slots[slot] = room - size, window
        start += length
    return windows


def unbounded_first_fit(lengths, context):
    """Return how many windows first-fit takes that keeps every window open; no length is more than the context."""
    rooms = []
    for length in lengths:
        for number, room in enumerate(rooms):
            if room >= length:
                rooms[number] -= length
                break
        else:
            rooms.append(context - length)
    return len(rooms)


@pytest.mark.parametrize("name", packing.PACKINGS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_token_after_the_first_is_scored_once(name, context):
    lengths = lengths_of(211, 67)
    plan = plan_of(name, lengths, context)
    scored = [np.arange(start, stop) + 1 for window in stretches(plan) for start, stop in window]
    assert sorted(np.concatenate(scored).tolist()) == list(range(1, lengths.sum() + 1))
    assert plan.all - plan.whole in ((0, 1) if name == "split" else (0,))
    for index in (plan.all, plan.all + 7):
        assert plan.stretches(index).shape == (2, 0)


@pytest.mark.parametrize("context", CONTEXTS)
def test_split_gives_each_window_the_tokens_that_follow_those_before(context):
    lengths = lengths_of(53, 67)
    windows = stretches(plan_of("split", lengths, context))
    total = int(lengths.sum())
    assert windows == [[(start, min(start + context, total))] for start in range(0, total, context)]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("most", "most_open"), [(67, 17), (101, 5), (40, 2)])
def test_first_fit_is_that_of_the_slow_version(monkeypatch, context, most, most_open):
    monkeypatch.setattr(packing, "_OPEN", most_open)
    monkeypatch.setattr(packing, "_GROUP", 9973)  # all of them
    lengths = lengths_of(311, most)
    assert stretches(plan_of("first_fit", lengths, context)) == slow_first_fit(lengths.tolist(), context, most_open)


def test_groups_are_packed_side_by_side_as_if_alone(monkeypatch):
    monkeypatch.setattr(packing, "_GROUP", 97)
    monkeypatch.setattr(packing, "_OPEN", 13)
    lengths = lengths_of(3 * 97 + 11, 31)
    expected, start = [], 0
    for group in np.split(lengths, range(97, len(lengths), 97)):
        own = slow_first_fit(group.tolist(), 31, 13)
        expected += [[(start + first, start + last) for first, last in window] for window in own]
        start += group.sum()
    assert stretches(plan_of("first_fit", lengths, 31)) == expected


def test_first_fit_cuts_only_what_is_longer_than_a_window():
    lengths, context = lengths_of(401, 71), 53
    ends = np.cumsum(lengths)
    owned = {index: [] for index in range(len(lengths))}
    for window in stretches(plan_of("first_fit", lengths, context)):
        for start, stop in window:
            owner = int(np.searchsorted(ends, start, "right"))
            assert stop <= ends[owner]  # a stretch is of one record
            owned[owner].append(stop - start)
    for index, length in enumerate(lengths.tolist()):
        rest = [length % context] if length % context else []
        assert sorted(owned[index]) == sorted([context] * (length // context) + rest)


@pytest.mark.parametrize("most", [50, 100, 256])
def test_little_stays_free(most):
    lengths, context = lengths_of(2003, most), 256
    windows = plan_of("first_fit", lengths, context).all
    assert lengths.sum() / (windows * context) > 0.93
    assert windows <= 1.01 * unbounded_first_fit(lengths.tolist(), context)


def test_rests_of_long_records_share_windows():
    lengths = lengths_of(2003, 3000)
    assert lengths.sum() / (plan_of("first_fit", lengths, 1024).all * 1024) > 0.97


def test_a_million_records_take_seconds():
    lengths = lengths_of(1_000_003, 701)
    begun = time.process_time()
    plan = plan_of("first_fit", lengths, 1024)
    assert time.process_time() - begun < 20  # 1.3 on one core
    assert lengths.sum() / (plan.all * 1024) > 0.97
