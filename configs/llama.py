r"""Llama-shaped decoders, from scratch; the argument is the size.

Source:    SmolLM2 (135m, 360m, 1.7b), TinyLlama (1.1b), Llama 2 (7b, 13b, 70b), Llama 3 (8b, 3-70b): learning
           rates as their authors give them, schedule as in Touvron et al. 2023 (arXiv 2302.13971, §2.3)
Command:   python -m lm.train --config=configs/llama.py:135m --workdir=runs/llama \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  for accelerators; beyond 1.7b set parallel.mesh.fsdp over many of them
Expect:    no run at this scale has been measured here
"""

from lm.config import defaults, parse_arg
from lm.families import llama

PEAKS = {
    "135m": 3e-3,
    "360m": 3e-3,
    "1.7b": 5e-4,
    "1.1b": 4e-4,
    "7b": 3e-4,
    "13b": 3e-4,
    "70b": 1.5e-4,
    "8b": 3e-4,
    "3-70b": 1.5e-4,
}


def get_config(arg=None):
    """Return the config of a size."""
    size = parse_arg(arg, size=tuple(PEAKS)).size
    config = defaults()
    config.model.family = "llama"
    config.model.update(llama.SIZES[size])
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"
    config.data.tokenizer = f"bpe:{llama.SIZES[size]['vocabulary']}"
    config.data.batch_size = 512
    config.data.valid_fraction = 0.001
    config.train.tokens = 10_000_000_000
    config.train.accumulate = 16
    config.train.evaluate_every = 1000
    config.train.checkpoint_every = 1000
    config.schedule.peak = PEAKS[size]
    config.schedule.final = PEAKS[size] / 10
    config.schedule.warmup_steps = 2000
    return config
