"""Batch k is a pure function of (seed, k), the same on any number of devices and with any haste."""

import gc
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.batch import Batch
from lm.data import batches
from lm.data.packing import PACKINGS
from lm.data.store import Part, Split
from lm.data.windows import Windows
from lm.growth import Growth
from lm.objective.catalog import objective
from lm.refusal import Refusal

CONTEXT, SIZE = 5, 8


def windows_of(tokens, source=0):
    ids = np.arange(1, tokens + 1, dtype=np.uint16)  # the first id of a window says which window it is
    split = Split((ids,), np.array([0]), np.arange(0, tokens - 1, 7), tokens, bytes=0)
    return Windows(split, PACKINGS["split"](split.offsets, tokens, CONTEXT), CONTEXT, False, source)


def rows_of(goal, seed, *given):
    """Return the training rows of parts, each a name, a weight and a number of tokens."""
    parts = [Part(name, weight, None, {}, "", None, None) for name, weight, _ in given]
    windows = [windows_of(tokens, source) for source, (_, _, tokens) in enumerate(given)]
    return batches.train_rows(parts, windows, goal.shape, seed)


def sharded(devices, axis="data"):
    return NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), ("data",)), PartitionSpec(axis))


@pytest.fixture
def goal(tiny, setting):
    return objective(tiny().objective, setting(tiny().model))


@pytest.fixture
def rows(goal):
    """Seed → training rows of 17 whole windows and a part of one."""
    return lambda seed: rows_of(goal, seed, ("a", 1, 17 * CONTEXT + 3))


def window_numbers(rows, samples):
    return [(int(rows(sample).inputs[0]) - 1) // CONTEXT for sample in samples]


def as_lists(batch):
    return [np.asarray(field).tolist() for field in batch]


def test_every_epoch_visits_every_window_once_in_another_order(rows):
    order = window_numbers(rows(3), range(5 * 17))
    epochs = [tuple(order[start : start + 17]) for start in range(0, len(order), 17)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert len(set(epochs)) == 5 and tuple(range(17)) not in epochs


def test_a_seed_is_an_order(rows):
    assert window_numbers(rows(3), range(40)) == window_numbers(rows(3), range(40))
    assert window_numbers(rows(3), range(40)) != window_numbers(rows(5), range(40))
    assert window_numbers(rows(2**31 - 1), range(17)) != window_numbers(rows(0), range(17))


def test_the_order_is_random_access(rows):
    straight = window_numbers(rows(3), range(60))
    assert window_numbers(rows(3), reversed(range(60))) == straight[::-1]
    assert window_numbers(rows(3), [57]) == [straight[57]]


def test_batch_k_is_a_pure_function_of_seed_and_k(rows):
    make = lambda seed, k: batches.batch(rows(seed), k, SIZE, sharded(1))
    ahead = [as_lists(make(3, k)) for k in (11, 2, 0)]
    again = [as_lists(make(3, k)) for k in (0, 2, 11)]
    assert ahead == again[::-1]
    assert as_lists(make(5, 2)) != ahead[1]


def test_batch_k_holds_the_samples_from_k_times_its_size(rows):
    made = batches.batch(rows(3), 4, SIZE, sharded(1))
    for row in range(SIZE):
        sample = rows(3)(4 * SIZE + row)
        for name in Batch._fields[:6]:
            np.testing.assert_array_equal(getattr(made, name)[row], getattr(sample, name))
            assert getattr(made, name).dtype == getattr(sample, name).dtype


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_batches_are_the_same_on_any_number_of_devices(rows, devices):
    one = batches.batch(rows(3), 7, SIZE, sharded(1))
    many = batches.batch(rows(3), 7, SIZE, sharded(devices))
    assert as_lists(one) == as_lists(many)
    assert len(many.inputs.addressable_shards) == devices
    assert {shard.data.shape for shard in many.inputs.addressable_shards} == {(SIZE // devices, CONTEXT)}
    assert {shard.data.shape for shard in many.source.addressable_shards} == {(SIZE // devices,)}


def test_growing_batches_skip_nothing(rows):
    """Two micro-batches, the second from step 2 on: rows with odd numbers are padding before."""
    make = batches.grown(rows(3), Growth(SIZE, 2, 2))
    made = [batches.batch(make, k, SIZE, sharded(2)) for k in range(4)]
    for k, batch in enumerate(made):
        later = np.asarray(batch.weights)[1::2]
        assert (later.sum() > 0) == (k >= 2) and later.dtype == np.float32
    ids = np.concatenate([np.asarray(batch.inputs)[:: 2 if k < 2 else 1] for k, batch in enumerate(made)])
    np.testing.assert_array_equal(ids, [rows(3)(sample).inputs for sample in range(3 * SIZE)])


@pytest.mark.parametrize(("devices", "axis"), [(1, "data"), (8, "data"), (2, None)])
def test_each_row_is_built_once(rows, devices, axis):
    asked = []

    def counting(sample):
        asked.append(sample)
        return rows(3)(sample)

    batches.batch(counting, 3, SIZE, sharded(devices, axis))
    assert asked == list(range(3 * SIZE, 4 * SIZE))


def test_validation_is_the_text_in_order_and_then_padding(goal):
    windows = windows_of(9 * CONTEXT + 3)
    rows = batches.valid_rows(windows, goal.shape, 3)
    made = [batches.batch(rows, k, SIZE, sharded(2)) for _, k in batches.valid_batches([windows], SIZE)]
    weights = np.concatenate([np.asarray(batch.weights).ravel() for batch in made])
    targets = np.concatenate([np.asarray(batch.targets).ravel() for batch in made])
    assert targets[weights > 0].tolist() == list(range(2, windows.split.tokens + 1))
    assert weights.sum() == windows.split.tokens - 1 and set(weights.tolist()) == {0.0, 1.0}
    past = np.asarray(made[-1].segments)[windows.plan.all - SIZE :]
    assert past.size and not past.any()


def test_no_batch_of_validation_holds_two_parts(goal):
    windows = [windows_of(tokens, source) for source, tokens in enumerate((9 * CONTEXT + 3, 8 * CONTEXT + 1, 7))]
    assert batches.valid_batches(windows, SIZE) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    targets = {part: [] for part in range(3)}
    for part, k in batches.valid_batches(windows, SIZE):
        made = batches.batch(batches.valid_rows(windows[part], goal.shape, 3), k, SIZE, sharded(2))
        assert set(np.asarray(made.source).tolist()) == {part}
        targets[part] += np.asarray(made.targets)[np.asarray(made.weights) > 0].tolist()
    for part, mine in enumerate(windows):
        assert targets[part] == list(range(2, mine.split.tokens + 1))


MIXTURE = ("a", 2, 17 * CONTEXT + 3), ("b", 3, 11 * CONTEXT + 2), ("c", 0, 3)


def test_a_mixture_has_its_shares_in_every_cycle_and_never_what_has_none(goal):
    rows = rows_of(goal, 3, *MIXTURE)
    sources = [int(rows(sample).source) for sample in range(35)]
    assert all(sorted(sources[start : start + 5]) == [0, 0, 1, 1, 1] for start in range(0, 35, 5))
    assert rows(7).source.dtype == np.int32


def test_a_part_has_its_own_order_whatever_is_beside_it(goal):
    def drawn(name, *given):
        rows, place = rows_of(goal, 3, *given), [name for name, _, _ in given].index(name)
        made = [rows(sample) for sample in range(6 * 17)]
        return [int(row.inputs[0]) for row in made if row.source == place][:34]

    alone = drawn("a", MIXTURE[0])
    assert len(set(alone)) == 17 and len(alone) == 34
    assert drawn("a", *MIXTURE) == drawn("a", *MIXTURE[::-1]) == drawn("a", MIXTURE[0], ("d", 1, 31)) == alone
    assert drawn("z", ("z", 2, 17 * CONTEXT + 3)) != alone


def test_too_little_text_for_one_window_is_refused(goal):
    assert rows_of(goal, 3, ("a", 1, CONTEXT + 1))(7).inputs.tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(Refusal, match=r"'b' has 5 tokens.*more than 5.*model\.context\.$"):
        rows_of(goal, 3, ("a", 1, CONTEXT + 1), ("b", 1, CONTEXT))


def made_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def gone(seconds=5.0):
    """Say whether the thread has ended, within some seconds."""
    deadline = time.monotonic() + seconds
    while made_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not made_threads()


@pytest.mark.parametrize(("start", "stop"), [(0, 13), (5, 13), (12, 13), (13, 13)])
def test_prefetched_batches_are_the_same_in_order(start, stop):
    asked = []
    assert list(batches.prefetched(lambda k: asked.append(k) or k * k, start, stop)) == [
        k * k for k in range(start, stop)
    ]
    assert asked == list(range(start, stop))
    assert gone()


def test_prefetching_runs_a_bounded_way_ahead():
    asked = []
    ahead = batches.prefetched(asked.append, 0, 1000)
    for done in (1, 2, 3):
        next(ahead)
        time.sleep(0.05)
        assert done <= len(asked) <= done + batches._AHEAD
    ahead.close()


def test_prefetching_passes_exceptions_on_after_the_batches_before():
    def make(k):
        if k == 3:
            raise ValueError("record 3")
        return k

    found = []
    with pytest.raises(ValueError, match="record 3"):
        found.extend(batches.prefetched(make, 0, 7))
    ahead = batches.prefetched(make, 0, 7)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="record 3"):
        next(ahead)
    assert gone()


def test_an_abandoned_prefetch_makes_nothing_more():
    asked, gate = [], threading.Event()

    def make(k):
        asked.append(k)
        return k if k == 0 else gate.wait(5)

    ahead = batches.prefetched(make, 0, 7)
    next(ahead)
    while asked != [0, 1]:
        time.sleep(0.001)
    threading.Timer(0.05, gate.set).start()
    ahead.close()
    assert asked == [0, 1] and gone()


def test_an_abandoned_prefetch_stops_its_thread():
    assert gone()
    ahead = batches.prefetched(lambda k: k, 0, 10**9)
    next(ahead)
    assert len(made_threads()) == 1
    del ahead
    gc.collect()
    assert gone()
