r"""GPT-2 in its published sizes, from scratch; the argument is the size.

Source:    Radford et al. 2019, table 2; batch, schedule and betas as GPT-3 gives them for these sizes
           (Brown et al. 2020, arXiv 2005.14165, table 2.1), half a million tokens a step
Command:   python -m lm.train --config=configs/gpt2.py:124m --workdir=runs/gpt2 \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  for accelerators; on a CPU shrink data.batch_size and train.tokens
Expect:    the learning rates are the papers'; no run at this scale has been measured here
"""

from lm.config import defaults, parse_arg
from lm.families import gpt2

PEAKS = {"124m": 6e-4, "355m": 3e-4, "774m": 2.5e-4, "1.5b": 2e-4}


def get_config(arg=None):
    """Return the config of a size: 124m, 355m, 774m or 1.5b."""
    size = parse_arg(arg, size=tuple(gpt2.SIZES)).size
    config = defaults()
    config.model.family = "gpt2"
    config.model.update(gpt2.SIZES[size])
    config.model.dtype = "bfloat16"
    config.data.tokenizer = "bpe:50257"
    config.data.batch_size = 512
    config.data.valid_fraction = 0.001
    config.train.tokens = 10_000_000_000
    config.train.accumulate = 16
    config.train.evaluate_every = 1000
    config.train.checkpoint_every = 1000
    config.schedule.peak = PEAKS[size]
    config.schedule.final = PEAKS[size] / 10
    config.schedule.warmup_steps = 700
    return config
