r"""A model in a published size, from scratch; the argument is its family and size.

Source:    lm/families, whose files name the papers; the learning rate is what Llama 2 was trained with at 7b
           (Touvron et al. 2023, arXiv 2307.09288, §2.2), larger ones are usual for smaller models
Command:   python -m lm.train --config=configs/published.py:qwen3,0.6b --workdir=runs/qwen3 \
             --config.data.source='files:text/*.jsonl.gz'
Duration:  for accelerators; beyond 1b set parallel.mesh.fsdp
Expect:    no run at these sizes has been measured here
"""

from lm.config import defaults, parse_arg
from lm.config.objective import USUAL
from lm.families.catalog import FAMILIES, switches


def get_config(arg=None):
    """Return the config of a family and size, such as gemma3,1b."""
    given = parse_arg(arg, family=tuple(FAMILIES), size="")
    sizes = FAMILIES[given.family].SIZES
    size = sizes[parse_arg(given.size, size=tuple(sizes)).size]
    model = switches(given.family) | size
    config = defaults()
    config.model.family = given.family
    config.model.update(size)
    config.model.dtype = "bfloat16"
    config.model.remat = "dots"
    config.objective.name = USUAL[model["architecture"]]
    config.data.tokenizer = f"bpe:{model['vocabulary']}"
    config.data.batch_size = 2 ** (21 - (model["context"] - 1).bit_length())  # some two million tokens
    config.data.valid_fraction = 0.001
    config.train.tokens = 10_000_000_000
    config.train.accumulate = 16
    config.train.evaluate_every = 1000
    config.train.checkpoint_every = 1000
    config.schedule.peak = 3e-4
    config.schedule.final = 3e-5
    config.schedule.warmup_fraction = 0.02
    return config
