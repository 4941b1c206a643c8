"""Rows of pairs: each pair once an epoch, looked up from the sample alone; the held-out ones once, and then padding."""

import jax
import ml_collections
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.batch import Batch
from lm.config.data import FIELDS, PAIRED
from lm.data import batches, store, windows
from lm.growth import Growth
from lm.objective.catalog import OBJECTIVES
from lm.text import learn

LENGTH, SIZE = 7, 8


def shape(pair, key):
    """Make a row of a pair: its input's and its target's beginning, and what the key draws."""
    ids = np.zeros((2, LENGTH), np.int32)
    for row, some in zip(ids, (pair.input_ids, pair.target_ids), strict=True):
        row[: len(some)] = some[:LENGTH]
    weights = (ids[1] > 0).astype(np.float32)
    drawn = np.random.default_rng(key).integers(1 << 20, size=LENGTH)
    return Batch(ids[0], ids[1], weights, drawn, np.arange(LENGTH), np.int32(pair.source))


def records(name, count):
    return [(f"{name}{number}", f"{name} in {number}", f"{number}{name}") for number in range(count)]


@pytest.fixture
def opened(section, source_of):
    """Return a function: names and numbers of pairs → parts of the store, units of a split by its name."""

    def make(*given):
        mixture = tuple(f"{source_of(records(*one), one[0])}={weight}" for weight, one in enumerate(given, 1))
        data = section(unit="pair", mixture=mixture)
        parts = store.open_store(data).parts
        return parts, {split: windows.planned(parts, split, data, 0) for split in ("train", "valid")}

    return make


def texts(pair):
    return tuple(bytes(ids.tolist()).decode() for ids in (pair.input_ids, pair.target_ids))


def test_every_pair_is_in_one_split_as_it_was_given(opened):
    _, units = opened(("a", 131), ("b", 127))
    for source, (name, count) in enumerate((("a", 131), ("b", 127))):
        of_split = {split: units[split][source] for split in ("train", "valid")}
        found = [mine.unit(index) for mine in of_split.values() for index in range(mine.plan.all)]
        assert sorted(map(texts, found)) == sorted((text, target) for _, text, target in records(name, count))
        assert {pair.source for pair in found} == {source}
        assert all(ids.dtype == np.int32 for pair in found for ids in pair[:2])
        assert of_split["valid"].plan.all > 0


@pytest.mark.parametrize("shard_tokens", [5, 97])
def test_pairs_read_across_shards(opened, monkeypatch, shard_tokens):
    monkeypatch.setattr("lm.data.build._SHARD_TOKENS", shard_tokens)
    parts, units = opened(("a", 131))
    assert len(parts[0].train.shards) > 3
    found = [texts(mine[0].unit(index)) for mine in units.values() for index in range(mine[0].plan.all)]
    assert sorted(found) == sorted((text, target) for _, text, target in records("a", 131))


def test_an_epoch_is_every_pair_once_in_an_order_of_the_seed(opened):
    parts, units = opened(("a", 131))
    count = units["train"][0].plan.whole
    made = lambda seed: batches.train_rows(parts, units["train"], shape, seed)
    targets = lambda seed, samples: [bytes(made(seed)(sample).targets.tolist()) for sample in samples]
    order = targets(3, range(3 * count))
    epochs = [tuple(order[start : start + count]) for start in range(0, len(order), count)]
    assert all(len(set(epoch)) == count for epoch in epochs)
    assert len(set(map(frozenset, epochs))) == 1 and len(set(epochs)) == 3
    assert targets(3, [count + 5, 2, 0]) == [order[count + 5], order[2], order[0]]
    assert targets(5, range(count)) != order[:count]
    assert windows.epoch(parts, units["train"], 13) == 13 * count


def test_a_row_is_drawn_from_seed_and_sample_alone(opened):
    parts, units = opened(("a", 131))
    made = lambda seed: batches.train_rows(parts, units["train"], shape, seed)
    sharding = NamedSharding(Mesh(np.asarray(jax.devices()[:2]), ("data",)), PartitionSpec("data"))
    as_lists = lambda batch: [np.asarray(field).tolist() for field in jax.tree.leaves(batch)]
    ahead = [as_lists(batches.batch(made(3), k, SIZE, sharding)) for k in (11, 2, 0)]
    again = [as_lists(batches.batch(made(3), k, SIZE, sharding)) for k in (0, 2, 11)]
    assert ahead == again[::-1]
    assert as_lists(batches.batch(made(5), 2, SIZE, sharding)) != ahead[1]
    np.testing.assert_array_equal(ahead[1][3][1], np.random.default_rng((3, 2 * SIZE + 1)).integers(1 << 20, size=7))


def test_a_mixture_of_pairs_has_its_shares(opened):
    parts, units = opened(("a", 131), ("b", 127))
    rows = batches.train_rows(parts, units["train"], shape, 3)
    sources = [int(rows(sample).source) for sample in range(300)]
    assert all(sorted(sources[start : start + 3]) == [0, 1, 1] for start in range(0, 300, 3))
    assert windows.epoch(parts, units["train"], 1) == sum(mine.plan.whole for mine in units["train"])


def test_growing_batches_of_pairs_skip_none(opened):
    parts, units = opened(("a", 131))
    rows = batches.train_rows(parts, units["train"], shape, 3)
    grown = batches.grown(rows, Growth(SIZE, 2, 2))
    made = [grown(place) for place in range(4 * SIZE)]
    kept = [row for place, row in enumerate(made) if place >= 2 * SIZE or place % 2 == 0]
    assert [row.inputs.tolist() for row in kept] == [rows(sample).inputs.tolist() for sample in range(3 * SIZE)]
    assert not any(made[place].weights.any() for place in range(1, 2 * SIZE, 2))


def test_validation_holds_each_pair_once_in_order_and_then_padding(opened):
    _, units = opened(("a", 131), ("b", 127))
    targets = {0: [], 1: []}
    for part, k in batches.valid_batches(units["valid"], SIZE):
        rows = batches.valid_rows(units["valid"][part], shape, 3)
        for row in map(rows, range(k * SIZE, (k + 1) * SIZE)):
            assert row.source == part and row.source.dtype == np.int32
            if row.weights.any():
                targets[part].append(row.targets[: int(row.weights.sum())].tolist())
            else:
                assert not any(field.any() for field in row[:5])
    for part, mine in enumerate(units["valid"]):
        assert mine.plan.all % SIZE, "the last batch is not full"
        assert targets[part] == [mine.unit(index).target_ids[:LENGTH].tolist() for index in range(mine.plan.all)]


def test_the_config_knows_which_objectives_learn_from_pairs(tiny, setting, section):
    found = setting(tiny().model)._replace(tokenizer=learn.learn(section(), []))
    goal = ml_collections.FrozenConfigDict(tiny().objective.to_dict() | {"labels": ("even", "odd")})
    goals = {name: made(goal, found) for name, made in OBJECTIVES.items()}
    assert {name for name, goal in goals.items() if goal.unit == "pair"} == set(PAIRED)
    assert {goal.unit for goal in goals.values()} <= set(FIELDS["data.unit"].rule.choices)
