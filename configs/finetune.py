"""Go on from weights that there are: a run's, or published ones; the argument is their PLACE.

Source:    defaults of this project: a small rate, since the weights are learned already
Command:   python -m lm.train --config=configs/finetune.py:PLACE --workdir=runs/finetune \\
             --config.data.source='files:my/*.txt'
Duration:  by the model and machine; 200 steps of 8 windows
Expect:    the validation before the first step is the loss of the model as it was; it falls from there
"""

from lm.config import defaults


def get_config(place):
    """Return the config of a run that starts from a PLACE, whose model and tokenizer it has."""
    config = defaults()
    config.init.from_place = place
    config.data.batch_size = 8
    config.schedule.peak = 2e-5
    config.schedule.warmup_steps = 20
    config.train.steps = 200
    config.train.evaluate_every = 50
    config.train.checkpoint_every = 50
    config.train.sample_every = 100
    return config
