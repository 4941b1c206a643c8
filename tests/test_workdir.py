"""Files are replaced whole or not at all."""

import json
import os

import pytest

from lm import workdir


def test_write_replaces_whole_files_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    workdir.write_json(path, {"é": [3, 5]})
    workdir.write_json(path, {"é": [3]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [3]}
    assert os.listdir(path.parent) == ["b.json"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "run.json"
    workdir.write(path, "old")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, function, die)
        with pytest.raises(KeyboardInterrupt):
            workdir.write(path, "new" * 997)
    assert path.read_text() == "old"
    workdir.write(path, "new")
    assert path.read_text() == "new"
