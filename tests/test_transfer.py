"""Far files are copied to the disk once, and once more when they have changed."""

import pytest

from lm import storage, transfer


@pytest.fixture(autouse=True)
def near(tmp_path, monkeypatch):
    """Keep copies in a folder of the test's."""
    monkeypatch.setattr(transfer, "NEAR", tmp_path / "near")


def put(far, **files):
    for name, data in files.items():
        storage.write(far / name, data.encode())


def test_a_folder_is_copied_once_and_again_when_it_has_changed(far):
    put(far / "model", one="1", two="2", pickle="!")
    said = []
    fetch = lambda: transfer.fetched(far / "model", lambda name: name != "pickle", said.append)
    first = fetch()
    assert {path.name: path.read_text() for path in first.iterdir()} == {"one": "1", "two": "2"}
    assert first.name == "model" and said == [f"fetching {far}/model: 0.0 MB"]
    assert fetch() == first and len(said) == 1
    put(far / "model", two="3")  # as long as before
    second = fetch()
    assert (second / "two").read_text() == "3" and (first / "two").read_text() == "2" and len(said) == 2


def test_a_file_is_copied_under_its_name(far):
    put(far, **{"model.gguf": "it"})
    near = transfer.fetched(far / "model.gguf", lambda name: True, lambda words: None)
    assert near.name == "model.gguf" and near.read_text() == "it"


def test_a_copy_that_was_cut_short_is_none(far, monkeypatch):
    put(far / "model", one="1")
    fetch = lambda: transfer.fetched(far / "model", lambda name: True, lambda words: None)

    def die(path, near, count):
        near.write_text("ha")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_into", die)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert (fetch() / "one").read_text() == "1"


def test_what_is_sent_is_there_with_the_last_at_the_end(far, tmp_path, monkeypatch):
    folder = tmp_path / "made"
    for number in range(5):
        (folder / "a").mkdir(parents=True, exist_ok=True)
        (folder / "a" / str(number)).write_text("x" * number)
    sent, send = [], storage.write_from
    monkeypatch.setattr(storage, "write_from", lambda *args: (sent.append(args[1]), send(*args)))
    transfer.send(folder, far, lambda words: None, last="a/4")
    assert len(sent) == 5 and sent[-1] == far / "a" / "4"
    transfer.fetch(far, tmp_path / "back", lambda words: None)
    assert {path.name: path.read_text() for path in (tmp_path / "back" / "a").iterdir()} == {
        str(number): "x" * number for number in range(5)
    }


def test_long_work_is_told(far, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_SAY_SECONDS", 0.0)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").write_bytes(bytes(900_000))
    said = []
    transfer.send(tmp_path / "made", far, said.append)
    assert said[0] == f"sending to {far}: 0.9 MB" and said[-1].startswith(f"sending to {far}: 1 of 1 MB, 0 s left")
