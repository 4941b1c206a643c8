"""The first run: a small decoder learns Python from Python's own standard library. Tuned below.

Command:  python -m lm.train --config=configs/quickstart.py --workdir=runs/quickstart   (or: make train)
"""

from lm.config import defaults


def get_config():
    config = defaults()
    config.train.steps = 100
    return config
