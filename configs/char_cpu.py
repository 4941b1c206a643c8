"""A character model for a CPU: the recipe that nanoGPT publishes for a laptop, on any text.

Source:    github.com/karpathy/nanoGPT, README ("I only have a macbook"), config/train_shakespeare_char.py
Command:   python -m lm.train --config=configs/char_cpu.py --workdir=runs/char_cpu --config.data.source='files:my.txt'
Duration:  about two minutes on 2 cores
Expect:    validation loss 1.875 on 1.1 MB of Shakespeare, 39 ms a step where PyTorch's takes 33; the texts
           [a-c]*_gut.txt, hamlet_gut.txt and lear_gut.txt of the package shakespeare 0.6, one after another,
           measured by benchmarks/char_cpu.py
"""

from lm.config import defaults


def get_config():
    """Return the config."""
    config = defaults()
    config.data.source = "embedded:prose"
    config.data.tokenizer = "char"
    config.data.batch_size = 12
    config.data.valid_fraction = 0.1
    config.model.context = 64
    config.model.width = 128
    config.model.layers = 4
    config.model.heads = 4
    config.model.activation = "gelu"
    config.model.bias = False
    config.model.vocabulary_multiple = 1
    config.optimizer.b2 = 0.99
    config.schedule.peak = 1e-3
    config.schedule.final = 1e-4
    config.schedule.warmup_steps = 100
    config.train.steps = 2000
    config.train.evaluate_every = 500
    return config
