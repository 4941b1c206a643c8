"""Paths name leaves, and rules choose by path: the first match wins, no match is an error."""

import numpy as np
import pytest

from lm import trees

TREE = {
    "decoder": {"block": {"query": {"kernel": np.zeros((3, 5)), "bias": np.zeros(5)}, "norm": {"scale": np.ones(3)}}},
    "pair": (np.zeros(2), [np.zeros(7)]),
}


def test_paths_are_in_leaf_order():
    assert trees.paths(TREE) == [
        "decoder/block/norm/scale",
        "decoder/block/query/bias",
        "decoder/block/query/kernel",
        "pair/0",
        "pair/1/0",
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([("kernel$", "a"), ("query", "b"), ("", "c")], ["c", "b", "a", "c", "c"]),
        ([("query", "b"), ("kernel$", "a"), ("", "c")], ["c", "b", "b", "c", "c"]),
        ([("^pair/1", 1), ("^pair", None), (".", False)], [False, False, False, None, 1]),
    ],
)
def test_the_first_match_wins(rules, expected):
    found = trees.select(TREE, rules)
    assert [trees.choose(path, rules) for path in trees.paths(TREE)] == expected
    assert found["decoder"]["block"]["query"]["kernel"] == expected[2]
    assert (found["pair"][0], found["pair"][1][0]) == (expected[3], expected[4])


def test_an_unmatched_path_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"'decoder/block/norm/scale'.*kernel"):
        trees.select(TREE, [("kernel", 1), ("bias", 2)])
    with pytest.raises(ValueError, match="no rule"):
        trees.choose("anything", [])
