"""Family name → its switches, published sizes and weight rows."""

from lm.families import base, gpt2, llama, mixtral, qwen3_moe

FAMILIES = {"gpt2": gpt2, "llama": llama, "mixtral": mixtral, "qwen3_moe": qwen3_moe}


def switches(family: str) -> dict[str, object]:
    """Return what a family sets where a config leaves it unset."""
    return base.SWITCHES | FAMILIES[family].SWITCHES
