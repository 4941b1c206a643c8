r"""T5 in its published sizes, from scratch, and a tiny one for a CPU; the argument is the size.

Source:    Raffel et al. 2020 (arXiv 1910.10683), §3.1.2 and §3.1.4: batch, steps, Adafactor, rate 1/√step, spans of
           mean length 3 of 15 % of the text; the rate grows over its first 10,000 steps, where theirs is constant
Command:   python -m lm.train --config=configs/t5.py --workdir=runs/t5
           python -m lm.train --config=configs/t5.py:base --workdir=runs/t5 \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  tiny: about five minutes on 2 cores (of processor time, 0.44 s a step); the others are for accelerators
Expect:    tiny with --config.train.steps=420: validation loss 4.52, 30 % of the targets right, where the most frequent
           one is 4 %, and 1.1 % of the spans restored exactly, where the most frequent token is 0.5 % of them; at its
           full length it has not been measured, nor has any published size
"""

from lm.config import defaults, parse_arg
from lm.families import t5


def get_config(arg=None):
    """Return the config of a size: tiny where none is given, or such as small, base, v1.1-base."""
    size = parse_arg(arg, size=("tiny", *t5.SIZES)).size
    config = defaults()
    config.model.family = "t5"
    config.objective.name = "span"
    if size == "tiny":
        return _tiny(config)
    config.model.update(t5.SIZES[size])
    config.model.dtype = "bfloat16"
    config.data.tokenizer = "unigram:32000"  # and 100 sentinels
    config.data.batch_size = 128
    config.data.valid_fraction = 0.001
    config.optimizer.name = "adafactor"
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "inverse_sqrt"
    config.schedule.peak = 1e-2
    config.schedule.warmup_steps = 10_000
    config.train.steps = 2**19
    config.train.evaluate_every = 5000
    config.train.sample_every = 5000
    config.train.checkpoint_every = 5000
    return config


def _tiny(config):
    """Return the config with sizes for a few minutes on a CPU."""
    config.data.source = "embedded:code"
    config.data.tokenizer = "bpe:2048"
    config.data.batch_size = 16
    config.model.context = 128
    config.model.width = 128
    config.model.layers = 3
    config.model.heads = 4
    config.optimizer.name = "muon"
    config.schedule.peak = 5e-3
    config.schedule.warmup_fraction = 0.05
    config.train.steps = 1200
    config.train.evaluate_every = 400
    config.train.sample_every = 400
    config.train.checkpoint_every = 400
    return config
