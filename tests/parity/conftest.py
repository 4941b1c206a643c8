"""Beside Transformers: `make parity`. Without torch and transformers there is nothing here."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

IS_HERE = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
collect_ignore_glob = [] if IS_HERE else ["test_*.py"]

if IS_HERE:
    for name in ("models", "make_samplers"):
        path = Path(__file__).parents[1] / "golden" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])

_LARGEST: dict[str, list[float]] = {}


@pytest.fixture
def agree():
    """Return a function that holds two results within 1e-4 and notes under a name how far they are apart."""

    def check(name, one, other):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
        _LARGEST.setdefault(name, []).append(float(np.abs(one - other).max()))

    return check


def pytest_terminal_summary(terminalreporter):
    """Print the largest differences: of theirs opened here, and of ours opened there."""
    if _LARGEST:
        terminalreporter.write_line("largest difference of a logit (logits are some ±10): opened here, opened there")
    for name, differences in sorted(_LARGEST.items()):
        terminalreporter.write_line(f"  {name:28}" + "".join(f"{value:10.1e}" for value in differences))
