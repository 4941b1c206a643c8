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
