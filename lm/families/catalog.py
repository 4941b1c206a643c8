"""Family name → its switches, published sizes and weight rows."""

from lm.families import (
    base,
    bert,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    mixtral,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    t5,
)

FAMILIES = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": mistral,
    "mixtral": mixtral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "bert": bert,
    "roberta": roberta,
    "t5": t5,
}


def switches(family: str) -> dict[str, object]:
    """Return what a family sets where a config leaves it unset."""
    return base.SWITCHES | FAMILIES[family].SWITCHES
