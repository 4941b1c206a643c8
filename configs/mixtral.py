r"""Mixtral 8x7B, from scratch; the argument is the size.

Source:    Jiang et al. 2024, arXiv 2401.04088, table 1;
           rates and the weights of the routers' losses, which are not published, as OLMoE's
           (Muennighoff et al. 2024, arXiv 2409.02060)
Command:   python -m lm.train --config=configs/mixtral.py:8x7b --workdir=runs/mixtral \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  for accelerators, with parallel.mesh.fsdp over many of them
Expect:    no run at this scale has been measured here
"""

from lm.config import defaults, parse_arg
from lm.families import mixtral


def get_config(arg=None):
    """Return the config of a size: 8x7b."""
    size = parse_arg(arg, size=tuple(mixtral.SIZES)).size
    config = defaults()
    config.model.family = "mixtral"
    config.model.update(mixtral.SIZES[size])
    config.model.context = 4096
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"
    config.objective.balance_loss = 0.01
    config.objective.router_z_loss = 0.001
    config.data.tokenizer = f"bpe:{mixtral.SIZES[size]['vocabulary']}"
    config.data.batch_size = 1024
    config.data.valid_fraction = 0.001
    config.train.tokens = 10_000_000_000
    config.train.accumulate = 16
    config.train.evaluate_every = 1000
    config.train.checkpoint_every = 1000
    config.schedule.peak = 4e-4
    config.schedule.final = 4e-5
    config.schedule.warmup_steps = 2000
    return config
