"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2)."""

SWITCHES = {
    "norm": "layer",
    "norm_epsilon": 1e-5,
    "positions": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "bias": True,
    "tied": True,
}

_COMMON = {"context": 1024, "vocabulary": 50257}
SIZES = {
    "124m": {"layers": 12, "width": 768, "heads": 12, **_COMMON},
    "355m": {"layers": 24, "width": 1024, "heads": 16, **_COMMON},
    "774m": {"layers": 36, "width": 1280, "heads": 20, **_COMMON},
    "1.5b": {"layers": 48, "width": 1600, "heads": 25, **_COMMON},
}

# (our path, their tensor with {layer}, how theirs becomes ours); see lm/weights/layout.py.
WEIGHTS = (
    ("embed/embedding", "transformer.wte.weight", "vocabulary"),
    ("positions/embedding", "transformer.wpe.weight", "same"),
    ("decoder/block/attention_norm/scale", "transformer.h.{layer}.ln_1.weight", "same"),
    ("decoder/block/attention_norm/bias", "transformer.h.{layer}.ln_1.bias", "same"),
    ("decoder/block/attention/query/kernel", "transformer.h.{layer}.attn.c_attn.weight", "third:0"),
    ("decoder/block/attention/query/bias", "transformer.h.{layer}.attn.c_attn.bias", "third:0"),
    ("decoder/block/attention/key/kernel", "transformer.h.{layer}.attn.c_attn.weight", "third:1"),
    ("decoder/block/attention/key/bias", "transformer.h.{layer}.attn.c_attn.bias", "third:1"),
    ("decoder/block/attention/value/kernel", "transformer.h.{layer}.attn.c_attn.weight", "third:2"),
    ("decoder/block/attention/value/bias", "transformer.h.{layer}.attn.c_attn.bias", "third:2"),
    ("decoder/block/attention/out/kernel", "transformer.h.{layer}.attn.c_proj.weight", "same"),
    ("decoder/block/attention/out/bias", "transformer.h.{layer}.attn.c_proj.bias", "same"),
    ("decoder/block/feedforward_norm/scale", "transformer.h.{layer}.ln_2.weight", "same"),
    ("decoder/block/feedforward_norm/bias", "transformer.h.{layer}.ln_2.bias", "same"),
    ("decoder/block/feedforward/in/kernel", "transformer.h.{layer}.mlp.c_fc.weight", "same"),
    ("decoder/block/feedforward/in/bias", "transformer.h.{layer}.mlp.c_fc.bias", "same"),
    ("decoder/block/feedforward/out/kernel", "transformer.h.{layer}.mlp.c_proj.weight", "same"),
    ("decoder/block/feedforward/out/bias", "transformer.h.{layer}.mlp.c_proj.bias", "same"),
    ("decoder/norm/scale", "transformer.ln_f.weight", "same"),
    ("decoder/norm/bias", "transformer.ln_f.bias", "same"),
)
