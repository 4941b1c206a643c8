"""The path of a lock in; held while a block runs by one process of all that see the folder, and a dead one's lost.

On a disk it is a file that is made but once. On an object store it is an object that is written only where the one
that was read still stands, which TensorStore has for all of them. Its owner gives a sign of life from time to time.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lm import storage
from lm.refusal import Refusal

_HEARTBEAT = 5.0  # seconds between signs of life
_STALE = 30.0  # seconds without one after which a lock's owner counts as dead
_WATCH = 12.0  # seconds for which another machine's is watched, whatever the clocks say
_LOOK = 1.0  # seconds between looks at a lock that another has


class _Found(NamedTuple):
    """A lock that another has. mark: another one after each sign of life. age: seconds since the last, by our clock."""

    owner: dict[str, Any]
    mark: object
    age: float


@contextlib.contextmanager
def held(path: Path, what: str, say: Callable[[str], None], is_patient: bool = False) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; a lock whose owner died is taken over.

    Args:
      path: the lock file.
      what: what is locked, for the sentence.
      say: hears for whom this process waits.
      is_patient: whether to wait for a living owner, too.

    Raises:
      Refusal: another process has it, lives, and `is_patient` is false.
    """
    lock = (_Far if storage.is_far(path) else _Near)(path)
    _acquire(lock, what, say, is_patient)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT):
            with contextlib.suppress(OSError, ValueError):  # ValueError is what TensorStore raises of a lost network
                if not lock.beat():
                    print(f"error: {what} was taken over by another process; this one ends.", file=sys.stderr)
                    os._exit(1)  # to leave in order would be to write

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            lock.release()


def _acquire(lock: "_Near | _Far", what: str, say: Callable[[str], None], is_patient: bool) -> None:
    """Return when the lock is ours."""
    mark, since, said = None, 0.0, ""
    while found := lock.take():
        is_here = found.owner.get("host") == _owner()["host"]
        is_alive = is_here and found.age <= _STALE
        if found.mark != mark:
            is_alive |= mark is not None  # it has given a sign while we looked
            mark, since = found.mark, time.monotonic()
        if is_here and _is_gone(found.owner):
            lock.bury(found)
            continue
        watched, needed = time.monotonic() - since, min(_STALE, max(_STALE - found.age, 0.0 if is_here else _WATCH))
        if not is_alive and watched >= needed:
            lock.bury(found)
            continue
        host = str(found.owner.get("host", "?")).partition("/")[0]
        words = f"{what} is in use by process {found.owner.get('process', '?')} on {host}"
        if is_alive and not is_patient:
            raise Refusal(f"{words}; wait for it to end, or stop it.")
        words = f"waiting: {words}" if is_patient else f"{words}, or was: looking for {needed:.0f} s whether it lives"
        if words.partition(" or was")[0] != said:
            said = words.partition(" or was")[0]
            say(words)
        time.sleep(_LOOK)


def _owner() -> dict[str, Any]:
    """Return who this process is: a host is a name and, where there are any, a namespace of process ids."""
    with contextlib.suppress(OSError):
        return {"host": f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}", "process": os.getpid()}
    return {"host": socket.gethostname(), "process": os.getpid()}


def _is_gone(owner: dict[str, Any]) -> bool:
    """Say whether an owner on this host has ended."""
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


class _Near:
    """A lock on a disk."""

    def __init__(self, path: Path):
        self._path = path
        self._text = json.dumps(_owner() | {"token": uuid.uuid4().hex})
        path.parent.mkdir(parents=True, exist_ok=True)

    def take(self) -> _Found | None:
        """Take the lock, or return who has it."""
        while True:
            try:
                with open(self._path, "x", encoding="utf-8") as file:
                    file.write(self._text)
                return None
            except FileExistsError:
                pass
            with contextlib.suppress(FileNotFoundError):  # let go just now
                text, seen = self._path.read_text(encoding="utf-8"), self._path.stat().st_mtime
                try:
                    owner = json.loads(text)
                except ValueError:  # created but not yet written, or its writer died just then
                    owner = {}
                return _Found(owner, (text, seen), time.time() - seen)

    def bury(self, found: _Found) -> None:
        """Remove the lock of a dead owner."""
        grave = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, grave)
            if grave.read_text(encoding="utf-8") != found.mark[0]:  # another process was faster: give its lock back
                os.rename(grave, self._path)
            else:
                grave.unlink()

    def beat(self) -> bool:
        """Give a sign of life; say whether the lock is still ours."""
        if self._path.read_text(encoding="utf-8") != self._text:
            return False
        os.utime(self._path)
        return True

    def release(self) -> None:
        """Let the lock go."""
        if self._path.read_text(encoding="utf-8") == self._text:
            self._path.unlink()


class _Far:
    """A lock on an object store."""

    def __init__(self, path: Path):
        import tensorstore

        self._store, self._name = tensorstore.KvStore.open(storage.kvstore(path.parent)).result(), path.name
        self._owner = _owner() | {"token": uuid.uuid4().hex}
        self._free = None  # the generation that we may write over

    def _write(self, generation: bytes) -> bool:
        """Write the lock where that generation stands; say whether it is ours, as it also is if an answer was lost."""
        data = json.dumps(self._owner | {"beat": time.time()}).encode()
        self._generation = self._store.write(self._name, data, if_equal=generation).result().generation
        if not self._generation:
            found = self._store.read(self._name).result()
            self._generation = found.stamp.generation
            return found.state == "value" and json.loads(found.value)["token"] == self._owner["token"]
        return True

    def take(self) -> _Found | None:
        """Take the lock, or return who has it."""
        while True:
            found = self._store.read(self._name).result()
            generation = found.stamp.generation
            if found.state == "value" and generation != self._free:
                owner = json.loads(found.value)
                return _Found(owner, generation, time.time() - float(owner["beat"]))
            if self._write(generation):
                return None

    def bury(self, found: _Found) -> None:
        """Let the lock of a dead owner be written over."""
        self._free = found.mark

    def beat(self) -> bool:
        """Give a sign of life; say whether the lock is still ours."""
        return self._write(self._generation)

    def release(self) -> None:
        """Let the lock go."""
        self._store.write(self._name, None, if_equal=self._generation).result()
