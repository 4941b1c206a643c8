"""The switches of a model where its family has none of its own."""

SWITCHES = {
    "architecture": "decoder",
    "wiring": "pre",
    "qk_norm": False,
    "attention_soft_cap": 0.0,
    "logits_soft_cap": 0.0,
    "position_offset": 0,
    "token_types": 0,
    "embedding_norm": False,
    "head": "language",
    "scaled_head": False,
}
