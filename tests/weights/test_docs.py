"""docs/weights.md names every model that is read."""

from pathlib import Path

from lm.families.catalog import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")


def test_every_published_family_is_named():
    for family in FAMILIES.values():
        names = lambda words: ", ".join(f"`{word}`" for word in words)
        assert f"| {names(family.LAYOUT.model_types)} | {names(family.LAYOUT.architectures)} |" in PAGE
