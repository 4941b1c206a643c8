"""The switches of a model where its family has none of its own."""

SWITCHES = {
    "architecture": "decoder",
    "wiring": "pre",
    "unit_offset": False,
    "scaled_embedding": False,
    "rotary_share": 1.0,
    "rotary_window_base": 0.0,
    "qk_norm": False,
    "attention_soft_cap": 0.0,
    "logits_soft_cap": 0.0,
}
