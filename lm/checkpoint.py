"""A State and facts in; a verified folder per step out, and back: Orbax, a manifest of SHA-256, fall-back.

A checkpoint counts once its manifest stands, which is written after Orbax has committed everything else.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

from lm import storage, trees, workdir
from lm.refusal import Refusal

MANIFEST = "manifest.json"
_ASIDE = ".damaged"


def steps(folder: Path) -> list[int]:
    """Return the steps with a manifest, oldest first."""
    names = [path.parent.name for path in folder.glob(f"*/{MANIFEST}")]
    return sorted(int(name) for name in names if name.isdigit())


def meta(folder: Path, step: int) -> dict[str, Any]:
    """Return the facts that were saved with a step."""
    return json.loads((folder / str(step) / MANIFEST).read_text(encoding="utf-8"))["meta"]


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint's files, by the manifest's hashes; nothing when all are as written."""
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        wanted, files = manifest.pop("sha256"), manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path / MANIFEST} cannot be read"
    if hashlib.sha256(_canonical(manifest)).hexdigest() != wanted:
        return f"{path / MANIFEST} has changed since it was written"
    for file, is_there in storage.differing(path, files):
        return f"{file} has changed since it was written" if is_there else f"{file} is missing"
    return ""


def newest(folder: Path, say: Callable[[str], None], is_reader: bool = False) -> int | None:
    """Return the newest step whose files are as written; damaged ones are named and set aside.

    A reader moves nothing: the run that it reads from may be going on.

    Raises:
      Refusal: there are checkpoints, but every one is damaged.
    """
    found = steps(folder)
    reasons = []
    for path in sorted(folder.glob("[0-9]*")):
        if path.name.isdigit() and int(path.name) not in found:
            say(f"checkpoint {path.name} has no {MANIFEST}: it was never finished, and is not used.")
    for step in reversed(found):
        path = folder / str(step)
        reason = damage(path)
        if not reason:
            return step
        reasons.append(reason)
        where = "not used" if is_reader else f"set aside as {_set_aside(path).name}"
        say(f"checkpoint {step} is damaged: {reason}; it is {where}.")
    if found or list(folder.glob(f"*{_ASIDE}*")):
        why = f" ({reasons[0]})" if reasons else ""
        raise Refusal(
            f"every checkpoint in {folder} is damaged{why}; to start again, use another workdir or delete it."
        )
    return None


def score(folder: Path, step: int, loss: float | None) -> None:
    """Put the validation loss of a step that was saved without it into its manifest."""
    path = folder / str(step)
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    manifest.pop("sha256")
    manifest["meta"]["loss"] = loss
    _write_manifest(path, manifest)


def restore(path: Path, item: str, template: Any) -> Any:
    """Return an item of a checkpoint, laid out as the template's shardings say.

    Args:
      path: the checkpoint's folder.
      item: "params" or "opt_state".
      template: a pytree of jax.ShapeDtypeStruct.

    Raises:
      Refusal: the leaves saved have other paths, shapes or dtypes than the template's.
    """
    saved = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["meta"]["leaves"][item]
    wanted = describe(template)
    if saved != wanted:
        lines = [
            f"{name}: saved {saved.get(name, 'nothing')}, wanted {wanted.get(name, 'nothing')}"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        raise Refusal(f"checkpoint {path} does not fit: {'; '.join(lines)}.")
    return trees.mapped(partial(_read, path / item, tensorstore.Context()), template)


def _read(folder: Path, context: tensorstore.Context, name: str, leaf: Any) -> jax.Array:
    """Return an array that Orbax has written, of which each device reads its part.

    The store alone does it: Orbax takes longer to import than a small model to read.
    """
    place = {"driver": "ocdbt", "base": storage.kvstore(folder), "path": f"{name.replace('/', '.')}/"}
    store = tensorstore.open({"driver": "zarr", "kvstore": place}, open=True, read=True, context=context).result()
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: store[part].read().result())


def template(folder: Path, step: int, item: str) -> Any:
    """Return the shapes and dtypes of an item's leaves, as they were saved: what `describe` said of them."""
    tree: dict[str, Any] = {}
    for path, words in meta(folder, step)["leaves"][item].items():
        dtype, _, shape = words.partition("[")
        *parts, last = path.split("/")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = jax.ShapeDtypeStruct(json.loads(f"[{shape}"), dtype)
    return tree


def describe(tree: Any) -> dict[str, str]:
    """Return path → `dtype[shape]` of every leaf."""
    words = (f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree))
    return dict(zip(trees.paths(tree), words, strict=True))


class Saver:
    """Saves in the background, one checkpoint at a time, and keeps the newest and the best.

    Of several processes each has a Saver, and all save together; what is no array is the main one's to write.

    folder: where the steps go. latest, best: how many to keep. say: receives a line when a step is safe.
    is_main: whether this is the main process. agree: has that one call a function, while all others wait.
    """

    def __init__(
        self,
        folder: Path,
        latest: int,
        best: int,
        say: Callable[[str], None],
        is_main: bool = True,
        agree: Callable[[Callable[[], Any]], Any] = lambda make: make(),
    ):
        import orbax.checkpoint as ocp  # late, since who reads needs none of it

        self._folder, self._latest, self._best, self._say = folder, latest, best, say
        self._is_main, self._agree = is_main, agree
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        agree(self._clean)

    def _clean(self) -> None:
        for left in self._folder.glob("*orbax-checkpoint-tmp*"):
            storage.remove(left)

    def save(self, step: int, items: dict[str, Any], facts: dict[str, Any]) -> None:
        """Begin saving `items` (pytrees of arrays) and `facts` (JSON) as `step`; waits for the save before it.

        `facts["loss"]`, where given, decides which steps are best.
        """
        import orbax.checkpoint as ocp

        self.wait()
        path = self._folder / str(step)
        # left by a kill between Orbax's commit and the manifest, or set aside badly
        self._agree(lambda: storage.remove(path))
        facts = facts | {"step": step, "leaves": {name: describe(tree) for name, tree in items.items()}}
        saves = {name: ocp.args.StandardSave(_copied(tree)) for name, tree in items.items()}
        self._checkpointer.save(storage.absolute(path), args=ocp.args.Composite(**saves))
        self._thread = threading.Thread(target=self._finish, args=(path, facts), name="manifest")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last save is safe, or raise what went wrong with it."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Wait, and let Orbax's threads end."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def _finish(self, path: Path, facts: dict[str, Any]) -> None:
        try:
            self._checkpointer.wait_until_finished()  # and with it all processes
            if not self._is_main:
                return
            _write_manifest(path, {"meta": facts, "files": storage.digests(path)})
            self._say(f"checkpoint {facts['step']} saved")
            self._retain()
        except BaseException as error:  # handed to the thread that waits
            self._error = error

    def _retain(self) -> None:
        """Delete what is neither among the newest nor among the best."""
        found = steps(self._folder)
        scored = [(meta(self._folder, step).get("loss"), step) for step in found]
        best = sorted((loss, step) for loss, step in scored if loss is not None)[: self._best]
        kept = {*found[-self._latest :], *(step for _, step in best)}
        for step in set(found) - kept:
            path = self._folder / str(step)
            (path / MANIFEST).unlink()  # from here on it does not count
            storage.remove(path)


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    workdir.write_json(path / MANIFEST, manifest | {"sha256": hashlib.sha256(_canonical(manifest)).hexdigest()})


def _copied(tree: Any) -> Any:
    """Copy arrays that share the host's memory, since the next step writes into the state it is given."""
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(lambda leaf: leaf.copy(), tree)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _set_aside(path: Path) -> Path:
    number = 0
    while True:
        aside = path.with_name(f"{path.name}{_ASIDE}{number or ''}")
        if not aside.exists():
            storage.rename(path, aside)
            return aside
        number += 1
