"""Paths of a pytree's leaves, and the one way to choose something for each by its path."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax


def paths(tree: Any) -> list[str]:
    """Return the leaves' paths in leaf order, as `decoder/block/attention/query/kernel`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def choose(path: str, rules: Sequence[tuple[str, Any]]) -> Any:
    """Return the value of the first (regex, value) whose regex is found in `path`.

    Raises:
      ValueError: no rule matches.
    """
    for pattern, value in rules:
        if re.search(pattern, path):
            return value
    raise ValueError(f"no rule matches {path!r}; the rules are {[pattern for pattern, _ in rules]}")


def select(tree: Any, rules: Sequence[tuple[str, Any]]) -> Any:
    """Return a tree of `tree`'s structure whose leaves are the rules' values, by path; see `choose`."""
    treedef = jax.tree_util.tree_structure(tree)
    return jax.tree_util.tree_unflatten(treedef, [choose(path, rules) for path in paths(tree)])


def mapped(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Return the tree of `function(path, leaf)`."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    return jax.tree_util.tree_unflatten(treedef, map(function, paths(tree), leaves))
