"""Published models as Transformers wrote them (tests/golden), as values and as folders."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem.removesuffix("_tiny") for path in GOLDEN.glob("*_tiny.npz"))


class Golden(NamedTuple):
    """A published model and what comes of it; see tests/golden/make_logits.py."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    results: dict[str, np.ndarray]

    def write(self, folder):
        """Write config.json and model.safetensors, by the library's own writer."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, folder / "model.safetensors")
        return folder


@pytest.fixture(scope="session")
def golden():
    """Return a function: name → Golden."""

    def read(name):
        with np.load(GOLDEN / f"{name}_tiny.npz") as file:
            arrays = dict(file)
        config = json.loads(str(arrays.pop("config")))
        results = {key: arrays.pop(key) for key in ("ids", "mask", "logits", "greedy") if key in arrays}
        return Golden(config, arrays, results)

    return read


@pytest.fixture(params=NAMES)
def family(request, golden):
    """Return the Golden of every family in turn."""
    return golden(request.param)
