"""Every published size has a config that resolves to it, and names that there are not are refused."""

import importlib.util
from pathlib import Path

import pytest

from lm.config.resolve import resolve
from lm.families.catalog import FAMILIES
from lm.refusal import Refusal

CONFIGS = Path(__file__).parents[2] / "configs"


def get_config(name, arg):
    """Return what a file of configs gives for an argument."""
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_sizes_resolve(family):
    for size, fields in FAMILIES[family].SIZES.items():
        model = resolve(get_config("published", f"{family},{size}")).model
        assert {name: model[name] for name in fields} == fields and model.family == family


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sizes_with_a_rate_of_their_own_resolve(family):
    for size in ("124m", "1.5b") if family == "gpt2" else ("135m", "3-70b"):
        config = resolve(get_config(family, size))
        assert config.model.width == FAMILIES[family].SIZES[size]["width"] and config.schedule.peak != 1e-3


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        ("qwen3,0.5b", "'size' is '0.5b': it must be one of 0.6b"),
        ("qwen4,1b", "'family' is 'qwen4'"),
        ("qwen3,0.6b,7", "too many values"),
    ],
)
def test_what_there_is_not_is_refused(arg, words):
    with pytest.raises(Refusal, match=words):
        get_config("published", arg)
