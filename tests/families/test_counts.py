"""Every published size has as many parameters as Transformers' own class of it (tests/golden)."""

import json
from pathlib import Path

import pytest

from lm.config import defaults
from lm.config.objective import USUAL
from lm.config.resolve import resolve
from lm.costs import flops
from lm.families.catalog import FAMILIES, switches
from lm.weights.bundle import counted

THEIRS = json.loads((Path(__file__).parents[1] / "golden" / "parameter_counts.json").read_text())


def test_every_size_is_counted():
    """A size without a count needs a row in tests/golden/make_parameter_counts.py."""
    assert {name: set(family.SIZES) for name, family in FAMILIES.items()} == {
        name: set(sizes) for name, sizes in THEIRS.items()
    }


@pytest.mark.parametrize(("family", "size"), [(family, size) for family in THEIRS for size in THEIRS[family]])
def test_parameters_are_as_many_as_theirs(family, size):
    config = defaults()
    config.model.family = family
    config.model.update(FAMILIES[family].SIZES[size])
    config.objective.name = USUAL[switches(family)["architecture"]]
    config.train.steps = 1
    assert flops.parameters(counted(resolve(config).model)) == THEIRS[family][size]
