r"""BERT in its published sizes, from scratch, and a tiny one for a CPU; the argument is the size, tiny without one.

Source:    Devlin et al. 2019 (arXiv 1810.04805), §3 and appendix A.2: batch, steps, rate, betas, decay, dropout; with
           RoBERTa's dynamic masks and without the second objective (Liu et al. 2019, arXiv 1907.11692, §4.1 and 4.2)
Command:   python -m lm.train --config=configs/bert.py --workdir=runs/bert
           python -m lm.train --config=configs/bert.py:base --workdir=runs/bert \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  tiny: about five minutes of processor time (16 minutes beside much other work); the others are for
           accelerators
Expect:    tiny: validation loss 2.56, 49 % of the hidden tokens right, where the most frequent token is 2 %; no
           published size has been measured here
"""

from lm.config import defaults, parse_arg
from lm.families import bert


def get_config(arg=None):
    """Return the config of a size: tiny where none is given, or base, base-cased, large, large-cased."""
    sizes = [name for name in bert.SIZES if name != "minilm"]
    size = parse_arg(arg, size=("tiny", *sizes)).size
    config = defaults()
    config.model.family = "bert"
    config.objective.name = "masked"
    if size == "tiny":
        return _tiny(config)
    config.model.update(bert.SIZES[size])
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.1
    config.data.tokenizer = f"wordpiece:{config.model.vocabulary - 1}"  # and the mask token
    config.data.batch_size = 256
    config.data.valid_fraction = 0.001
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.01
    config.schedule.name = "linear"
    config.schedule.peak = 1e-4
    config.schedule.warmup_steps = 10_000
    config.train.steps = 1_000_000
    config.train.evaluate_every = 5000
    config.train.sample_every = 5000
    config.train.checkpoint_every = 5000
    return config


def _tiny(config):
    """Return the config with what learns in a few minutes on a CPU: norms before the branches, rotary positions.

    As published it still guesses by the tokens' frequency alone after 300 steps.
    """
    config.data.source = "embedded:code"
    config.data.tokenizer = "bpe:2048"
    config.data.batch_size = 16
    config.model.context = 128
    config.model.width = 128
    config.model.layers = 4
    config.model.heads = 4
    config.model.wiring = "pre"
    config.model.embedding_norm = False
    config.model.positions = "rotary"
    config.optimizer.name = "muon"
    config.schedule.peak = 5e-3
    config.schedule.warmup_fraction = 0.05
    config.train.steps = 1500
    config.train.evaluate_every = 500
    config.train.sample_every = 500
    config.train.checkpoint_every = 500
    return config
