"""A far folder has what a near one has: digests that notice every change, names, whole files."""

import subprocess
import sys

import pytest

from lm import storage
from lm.refusal import Refusal

FILES = {"a.bin": b"", "b/c.bin": bytes(range(251)) * 3, "b/d é.json": b"{}"}


@pytest.fixture(params=["near", "far"])
def folder(request, tmp_path):
    """Return a folder with files in it."""
    folder = tmp_path / "folder" if request.param == "near" else request.getfixturevalue("far") / "folder"
    put(folder, FILES)
    return folder


def put(folder, files):
    """Write files into a folder."""
    for name, data in files.items():
        if storage.is_far(folder):
            storage.write(folder / name, data)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def test_digests_notice_what_changed_and_what_is_missing(folder):
    wanted = storage.digests(folder)
    assert sorted(wanted) == sorted(FILES) and len(set(wanted.values())) == 3
    assert list(storage.differing(folder, wanted)) == []
    put(folder, {"b/c.bin": FILES["b/c.bin"][:-1] + b"!"})
    (folder / "a.bin").unlink()
    assert dict(storage.differing(folder, wanted)) == {folder / "a.bin": False, folder / "b/c.bin": True}


def test_digests_hold_when_a_folder_goes_from_a_disk_to_a_store_or_back(folder, tmp_path, far):
    other = (tmp_path if storage.is_far(folder) else far) / "other"
    put(other, FILES)
    wanted = storage.digests(folder)
    assert list(storage.differing(other, wanted)) == []
    put(other, {"b/c.bin": FILES["b/c.bin"][:-1] + b"!"})
    assert list(storage.differing(other, wanted)) == [(other / "b/c.bin", True)]


def test_folders_are_renamed_and_removed_whole(folder):
    other = folder.with_name("other")
    wanted = storage.digests(folder)
    storage.rename(folder, other)
    assert not folder.exists() and storage.digests(other) == wanted
    storage.remove(other)
    storage.remove(other)  # what is not there is left so
    assert not other.exists()


def test_what_another_process_writes_is_seen(far):
    assert list(far.glob("*")) == [] and not (far / "a").exists()
    program = "import sys; from lm import storage; storage.write(storage.place(sys.argv[1]) / 'a', b'it')"
    subprocess.run([sys.executable, "-c", program, str(far)], check=True)
    assert list(far.glob("*")) == [far / "a"] and (far / "a").read_bytes() == b"it"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/run", "'s3://bucket/run' is on no storage that is known: name a folder of a disk, or gs://"),
        ("gs:///run", "'gs:///run' names no bucket: write gs://BUCKET/FOLDER"),
        ("gs://another/run", "there is no bucket gs://another"),
    ],
)
def test_what_is_no_place_is_refused(store_of_objects, name, words):
    with pytest.raises(Refusal, match=words):
        storage.place(name)


@pytest.mark.parametrize("module", ["gcsfs", "google_crc32c"])
def test_without_the_extra_the_command_is_said(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a").write_bytes(b"it")
    with pytest.raises(Refusal, match=r"pip install 'lm\[gcs\]'"):
        if module == "gcsfs":
            storage.place("gs://bucket/run")
        list(storage.differing(tmp_path, {"a": "crc32c:AAAA"}))


def test_a_store_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network\n at all")

    monkeypatch.setattr(storage, "_system", fail)
    with pytest.raises(Refusal, match=r"^gs://far-away cannot be read: no network at all\.$"):
        storage.place("gs://far-away/run")


@pytest.mark.parametrize("name", ["gs://bucket", "gs://bucket/", "gs://bucket/a b@3#/", "gs://bucket//c"])
def test_tensorstore_and_etils_mean_the_same_object(store_of_objects, name):
    import tensorstore

    folder = storage.place(name)
    store = tensorstore.KvStore.open(storage.kvstore(folder)).result()
    store.write("it", b"1").result()
    assert (folder / "it").read_bytes() == b"1" and folder / "it" in folder.glob("*")
    (folder / "it").unlink()
    assert store.read("it").result().state == "missing"
