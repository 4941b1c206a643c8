"""Facts of a small mixture, counted by hand."""

import pytest

from lm.data import store, windows
from lm.data.facts import facts


@pytest.mark.parametrize("packing", ["split", "first_fit"])
def test_facts_are_what_can_be_counted(section, source_of, packing):
    names = [source_of([(name, name * 100)], name) for name in "abc"]
    data = section(
        mixture=tuple(f"{name}={weight}" for name, weight in zip(names, (3, 1, 0), strict=True)), packing=packing
    )
    opened = store.open_store(data)
    train = windows.planned(opened.parts, "train", data, 13)
    found = facts(opened, train, samples=80)
    assert found["fingerprint"] == opened.fingerprint
    assert [part["source"] for part in found["parts"]] == ["files:a", "files:b", "files:c"]
    assert [part["share"] for part in found["parts"]] == [0.75, 0.25, 0.0]
    split = {"records": 1, "tokens": 92, "bytes": 90, "input_bytes": 0}
    for part in found["parts"]:
        assert part["train"] == split | {"xz_bytes": None}
        assert part["valid"]["bytes"] == 10 and part["valid"]["xz_bytes"] > 0
        assert part["windows"] == 7 and part["filled"] == 1.0  # 91 scored tokens in 7 windows of 13
    assert [part["epochs"] for part in found["parts"]] == [60 / 7, 20 / 7, 0]
    assert found["train"] == {"records": 2, "tokens": 184, "bytes": 180, "input_bytes": 0, "xz_bytes": None}
    assert found["valid"]["bytes"] == 30
    assert found["valid"]["xz_bytes"] == sum(part["valid"]["xz_bytes"] for part in found["parts"])


def test_what_packing_leaves_free_is_seen(section, source_of):
    data = section(source=source_of([("a", "a" * 40)]), packing="first_fit")  # 36 to train on, 37 with their end
    opened = store.open_store(data)
    (part,) = facts(opened, windows.planned(opened.parts, "train", data, 20), samples=1)["parts"]
    assert part["windows"] == 2 and part["filled"] == 37 / 40


def test_facts_of_pairs_are_lengths_and_bytes_of_both(section, source_of):
    given = [(f"{number}", "i" * number, "t" * (1 + number % 3)) for number in range(1, 102)]
    data = section(unit="pair", source=source_of(given))
    opened = store.open_store(data)
    train = windows.planned(opened.parts, "train", data, 0)
    found = facts(opened, train, samples=300)
    (part,) = found["parts"]
    held_out = opened.parts[0].valid.offsets.size // 2
    trained = sorted(len(train[0].unit(index).input_ids) for index in range(part["pairs"]))
    assert part["pairs"] == part["train"]["records"] == 101 - held_out and 0 < held_out < 30
    assert part["input_tokens"] == [trained[(len(trained) - 1) // 2], trained[-1], trained[-1]]
    assert part["target_tokens"] == [2, 3, 3]
    assert part["epochs"] == 300 / part["pairs"] and "windows" not in part
    both = [found[split] for split in ("train", "valid")]
    assert sum(split["input_bytes"] for split in both) == sum(range(1, 102))
    assert sum(split["bytes"] for split in both) == sum(1 + number % 3 for number in range(1, 102))
    assert sum(split["tokens"] for split in both) == sum(number + 1 + number % 3 + 2 for number in range(1, 102)) + 2
