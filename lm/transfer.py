"""A folder of an object store in, a copy on this machine's disk out; and the other way.

What is memory-mapped must lie on a disk, and so must what another library reads.
"""

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lm import lock, storage

NEAR = Path("~", ".cache", "lm")  # of this machine's disk

_THREADS = 8
_SAY_SECONDS = 5.0

_Say = Callable[[str], None]


def fetched(path: Path, is_wanted: Callable[[str], bool], say: _Say) -> Path:
    """Return a far file or folder as it lies on this machine's disk: it is copied once, and again when it has changed.

    Args:
      path: of the file or folder.
      is_wanted: name in it → whether it is copied.
      say: hears of long work.
    """
    facts = {name: one for name, one in storage.facts(path).items() if is_wanted(name)}
    key = json.dumps([str(path), sorted((name, one.size, one.generation) for name, one in facts.items())])
    folder = NEAR.expanduser() / "fetched" / hashlib.sha256(key.encode()).hexdigest()[:20]
    near = folder / path.name
    with lock.held(folder.with_name(f"{folder.name}.lock"), f"the copy of {path}", say, is_patient=True):
        if not folder.exists():
            part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            try:
                fetch(path, part / path.name, say, is_wanted)
                os.replace(part, folder)
            finally:
                storage.remove(part)
    return near


def fetch(path: Path, near: Path, say: _Say, is_wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Copy a far file or folder to a disk."""
    facts = {name: one for name, one in storage.facts(path).items() if is_wanted(name)}
    is_file = path.is_file()
    pair = lambda name: (path, near) if is_file else (path / name, near / name)
    sizes = {pair(name): one.size for name, one in facts.items()}
    for _, target in sizes:
        target.parent.mkdir(parents=True, exist_ok=True)
    _copied(f"fetching {path}", storage.read_into, sizes, say)


def send(folder: Path, path: Path, say: _Say, last: str = "") -> None:
    """Copy all files in a folder of a disk to an object store, the one named `last` when all others are there."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    size = lambda names: {(files[name], path / name): files[name].stat().st_size for name in names}
    _copied(f"sending to {path}", storage.write_from, size(files.keys() - {last}), say)
    if last in files:
        storage.write_from(files[last], path / last, lambda size: None)


def _copied(what: str, copy: Callable[..., None], sizes: dict[tuple[Path, Path], int], say: _Say) -> None:
    """Copy many files at a time, the largest first."""
    total, begun = sum(sizes.values()), time.monotonic()
    done, said, guard = 0, begun, threading.Lock()
    say(f"{what}: {total / 1e6:,.1f} MB")

    def count(size: int) -> None:
        nonlocal done, said
        with guard:
            done += size
            now = time.monotonic()
            if now - said >= _SAY_SECONDS:
                said = now
                left = max(0.0, total / max(1, done) - 1) * (now - begun)
                say(f"{what}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {left:,.0f} s left")

    with ThreadPoolExecutor(_THREADS, "copy") as pool:
        pairs = sorted(sizes, key=sizes.__getitem__, reverse=True)
        for copied in [pool.submit(copy, *pair, count) for pair in pairs]:
            copied.result()
