"""Family name → its switches, published sizes and weight rows."""

from lm.families import gpt2, llama

FAMILIES = {"gpt2": gpt2, "llama": llama}
