"""Small workdirs, written by what writes those of real runs."""

import pytest

from lm import metrics, workdir
from lm.config import defaults
from lm.config.files import to_json

_FACTS = {
    "finished": True,
    "versions": {"lm": "0.1.0", "jax": "0.10.2"},
    "git_commit": "c" * 40,
    "backend": "cpu",
    "device_kind": "cpu",
    "devices": 1,
    "parameters": 7919,
    "data": {
        "source": "files:a.txt",
        "fingerprint": "a" * 64,
        "valid": {"records": 3, "tokens": 1009, "bytes": 4001, "xz_bytes": 1013},
    },
}


@pytest.fixture
def facts():
    """Return what run.json says of a run, as far as reports read it."""
    return _FACTS


@pytest.fixture
def make_run(tmp_path):
    """Return a function: name, rows (step, values), changes of config, changes of facts → the workdir."""

    def make(name, rows=(), changes=None, facts=None, has_facts=True):
        folder = tmp_path / name
        config = defaults()
        config.update_from_flattened_dict({"train.steps": 31} | (changes or {}))
        workdir.write(folder / workdir.CONFIG, to_json(config))
        if has_facts:
            workdir.write_json(folder / workdir.RUN, _FACTS | (facts or {}))
        writer = metrics.Writer(folder, 0)
        for step, values in rows:
            writer.write(step, values)
        writer.close()
        return folder

    return make
