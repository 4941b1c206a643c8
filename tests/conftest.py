"""Session-wide: 8 fake devices, and an array silently broadcast over a missing axis is an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def tiny():
    """Return a function: dotted overrides → a resolved and bound config of odd sizes, vocabulary 61."""
    from lm.config import defaults
    from lm.config.resolve import bind, resolve

    def make(**overrides):
        config = defaults()
        sizes = {
            "model.width": 24,
            "model.layers": 3,
            "model.heads": 4,
            "model.head_width": 6,
            "model.kv_heads": 2,
            "model.feedforward_width": 40,
            "model.context": 13,
            "model.vocabulary_multiple": 8,
            "data.batch_size": 8,
            "train.steps": 20,
        }
        given = {name.replace("__", "."): value for name, value in overrides.items()}
        for name, value in (sizes | given).items():
            *sections, leaf = name.split(".")
            node = config
            for section in sections:
                node = node[section]
            node[leaf] = value
        return bind(resolve(config), vocabulary=61, tokens=10_000)

    return make
