"""Family name → its switches, published sizes and weight rows."""

from lm.families import base, gpt2, llama

FAMILIES = {"gpt2": gpt2, "llama": llama}


def switches(family: str) -> dict[str, object]:
    """Return what a family sets where a config leaves it unset."""
    return base.SWITCHES | FAMILIES[family].SWITCHES
