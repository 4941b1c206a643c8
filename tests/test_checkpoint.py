"""Checkpoints: what was saved comes back, what was damaged is noticed, what is kept is the newest and the best."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import checkpoint, storage, transfer, workdir
from lm.refusal import Refusal


def items(step):
    """Return the pytrees of a small state whose numbers tell its step."""
    draw = np.random.default_rng(step)
    params = {"a": {"kernel": jnp.asarray(draw.normal(size=(5, 7)), jnp.float32)}, "b": jnp.arange(3.0) + step}
    return {"params": params, "opt_state": ({"mu": params["b"] * 2}, jnp.asarray(step, jnp.int32))}


def save(folder, losses, latest=2, best=1):
    """Save steps with their losses; return the lines said."""
    said = []
    saver = checkpoint.Saver(folder, latest, best, said.append)
    for step, loss in losses.items():
        saver.save(step, items(step), {"loss": loss, "skipped": 0})
    saver.close()
    return said


def template(tree):
    """Return shapes on one device."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with steps 3 and 6; copy before damaging."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(folder, {3: 1.0, 6: 0.5})
    return folder


def test_what_was_saved_comes_back(saved):
    assert checkpoint.newest(saved, pytest.fail) == 6
    for name, tree in items(6).items():
        back = checkpoint.restore(saved / "6", name, template(tree))
        assert jax.tree.structure(back) == jax.tree.structure(tree)
        for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("a/b"), {1: None})
    tree = items(1)["params"]
    back = checkpoint.restore(Path("a/b/1"), "params", template(tree))
    assert np.array_equal(back["b"], tree["b"])


def test_the_next_step_does_not_write_into_what_is_being_saved(tmp_path):
    grow = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state = {"kernel": jnp.zeros((521, 1031))}
    saver = checkpoint.Saver(tmp_path, 1, 0, lambda words: None)
    state = grow(state)
    saver.save(1, {"params": state}, {})
    for _ in range(50):
        state = grow(state)
    jax.block_until_ready(state)
    saver.close()
    back = checkpoint.restore(tmp_path / "1", "params", template(state))
    assert np.array_equal(back["kernel"], np.ones((521, 1031)))


def test_the_newest_and_the_best_are_kept(tmp_path):
    said = save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: 2.5, 6: 2.0}, latest=2, best=1)
    assert checkpoint.steps(tmp_path) == [2, 5, 6]
    assert said == [f"checkpoint {step} saved" for step in range(1, 7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6"]


def test_any_damage_to_any_file_is_noticed(saved, tmp_path):
    """Flip a bit of, cut short, and delete every file of a checkpoint, one at a time."""
    names = sorted(path.relative_to(saved / "6") for path in (saved / "6").rglob("*") if path.is_file())
    assert len(names) > 10
    place = tmp_path / "6"
    for name in names:
        for damage in ("flip", "cut", "delete"):
            shutil.copytree(saved / "6", place)
            data = bytearray((place / name).read_bytes())
            if damage == "flip":
                if not data:
                    shutil.rmtree(place)
                    continue
                data[len(data) // 3] ^= 16
                (place / name).write_bytes(bytes(data))
            elif damage == "cut":
                (place / name).write_bytes(bytes(data[: len(data) // 2]) if data else b"x")
            else:
                (place / name).unlink()
            reason = checkpoint.damage(place)
            assert str(place / name) in reason, (name, damage, reason)
            shutil.rmtree(place)


def test_a_damaged_one_is_set_aside_and_the_one_before_used(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    file = next(path for path in (folder / "6" / "params").rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes() + b"!")
    said = []
    assert checkpoint.newest(folder, said.append, is_reader=True) == 3
    assert str(file) in said.pop() and (folder / "6").is_dir()
    assert checkpoint.newest(folder, said.append) == 3
    assert len(said) == 1 and str(file) in said[0] and (folder / "6.damaged").is_dir()
    shutil.rmtree(folder / "3" / "opt_state")
    for _ in range(2):  # and never begins again by itself
        with pytest.raises(Refusal, match="every checkpoint in"):
            checkpoint.newest(folder, said.append)


def test_one_that_was_never_finished_is_named_and_not_used(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    (folder / "6" / checkpoint.MANIFEST).unlink()
    said = []
    assert checkpoint.newest(folder, said.append) == 3
    assert "checkpoint 6 has no manifest.json" in said[0]
    save(folder, {6: 0.1})
    assert checkpoint.newest(folder, pytest.fail) == 6


def test_leaves_that_do_not_fit_are_named(saved):
    wanted = template(items(6)["params"])
    wanted["b"] = jax.ShapeDtypeStruct((4,), jnp.float32)
    wanted["c"] = wanted["b"]
    with pytest.raises(Refusal) as refusal:
        checkpoint.restore(saved / "6", "params", wanted)
    assert "b: saved float32[3], wanted float32[4]; c: saved nothing, wanted float32[4]" in str(refusal.value)
    wanted = template(items(6)["params"])
    wanted["b"] = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    with pytest.raises(Refusal, match="wanted bfloat16"):
        checkpoint.restore(saved / "6", "params", wanted)


def test_the_template_of_what_was_saved_is_its_shapes(saved):
    for name, tree in items(6).items():
        found = checkpoint.template(saved, 6, name)
        assert checkpoint.describe(found) == checkpoint.describe(tree)


def test_folders_may_have_any_name(tmp_path):
    folder = tmp_path / "a b%20é#?"
    save(folder, {1: 0.5})
    tree = items(1)["params"]
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(folder / "1", "params", template(tree)), tree)


def test_a_loss_measured_later_counts(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    checkpoint.score(folder, 3, 0.25)
    assert checkpoint.meta(folder, 3)["loss"] == 0.25 and checkpoint.damage(folder / "3") == ""
    manifest = json.loads((folder / "3" / checkpoint.MANIFEST).read_text())
    assert len(manifest["files"]) > 10


def test_a_save_that_fails_is_heard_of(tmp_path, monkeypatch):
    saver = checkpoint.Saver(tmp_path, 1, 0, lambda words: None)
    saver.save(1, items(1), {})
    saver.wait()

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdir, "write_json", full)
    saver.save(2, items(2), {})
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    saver.close()
    assert checkpoint.newest(tmp_path, lambda words: None) == 1


def test_on_an_object_store_all_is_as_on_a_disk(far):
    said = save(far, {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}, latest=2, best=1)
    assert said == [f"checkpoint {step} saved" for step in range(1, 5)]
    assert checkpoint.steps(far) == [2, 3, 4] and checkpoint.newest(far, pytest.fail) == 4
    for name, tree in items(4).items():
        back = checkpoint.restore(far / "4", name, template(tree))
        assert all(map(np.array_equal, jax.tree.leaves(back), jax.tree.leaves(tree)))
    checkpoint.score(far, 3, 0.25)
    assert checkpoint.meta(far, 3)["loss"] == 0.25 and checkpoint.damage(far / "3") == ""
    storage.write(far / "4" / "params" / "manifest.ocdbt", b"!")
    said = []
    assert checkpoint.newest(far, said.append) == 3
    assert "4.damaged" in said[0] and (far / "4.damaged").is_dir() and not (far / "4").exists()


def test_one_that_a_store_had_is_good_on_a_disk(far, tmp_path):
    save(far, {1: 3.0})
    transfer.fetch(far, tmp_path / "near", lambda words: None)
    assert checkpoint.newest(tmp_path / "near", pytest.fail) == 1
    tree = items(1)["params"]
    assert np.array_equal(checkpoint.restore(tmp_path / "near" / "1", "params", template(tree))["b"], tree["b"])
