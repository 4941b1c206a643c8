"""The path of a lock in; held while a block runs by one process of all that see the folder, and a dead one's lost.

On a disk it is a file that is made but once. On an object store it is an object that is written only where the one
that was read still stands, which TensorStore has for all of them.
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
from typing import Any

from lm import storage
from lm.refusal import Refusal

_HEARTBEAT = 5.0  # seconds between signs of life
_STALE = 30.0  # seconds without one after which a lock's owner counts as dead
_WATCH = 12.0  # seconds for which a far lock that seems stale is watched, since clocks differ

_Wait = Callable[[str], None] | None


@contextlib.contextmanager
def held(path: Path, what: str, wait: _Wait = None) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; a lock whose owner died is taken over.

    Args:
      path: the lock file.
      what: what is locked, for the sentence.
      wait: called with a sentence about once a second while another process has it; None refuses at once.

    Raises:
      Refusal: another process has it and `wait` is None.
    """
    mine = _owner() | {"token": uuid.uuid4().hex}
    take = _take_far if storage.is_far(path) else _take_near
    beat, release = take(path, mine, lambda owner: _occupied(what, owner, wait))
    done = threading.Event()

    def signs() -> None:
        while not done.wait(_HEARTBEAT):
            with contextlib.suppress(OSError, ValueError):  # ValueError is what TensorStore raises of a lost network
                if not beat():
                    print(f"error: {what} was taken over by another process; this one ends.", file=sys.stderr)
                    os._exit(1)  # to leave in order would be to write

    thread = threading.Thread(target=signs, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            release()


def _owner() -> dict[str, Any]:
    """Return who this process is: a host is a name and, where there are any, a namespace of process ids."""
    with contextlib.suppress(OSError):
        return {"host": f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}", "process": os.getpid()}
    return {"host": socket.gethostname(), "process": os.getpid()}


def _is_gone(owner: dict[str, Any]) -> bool:
    """Say whether an owner's process, if it ran here, has ended."""
    if owner.get("host") == _owner()["host"]:
        try:
            os.kill(int(owner["process"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return False


def _occupied(what: str, owner: dict[str, Any], wait: _Wait) -> None:
    """Wait a second for a lock that another has, or refuse it."""
    host = str(owner.get("host", "?")).partition("/")[0]
    words = f"{what} is in use by process {owner.get('process', '?')} on {host}"
    if wait is None:
        raise Refusal(f"{words}; wait for it to end, or stop it.")
    wait(words)
    time.sleep(1.0)


_Taken = tuple[Callable[[], bool], Callable[[], None]]  # (give a sign of life; was it still ours), (let go)


def _take_near(path: Path, mine: dict[str, Any], occupied: Callable[[dict[str, Any]], None]) -> _Taken:
    path.parent.mkdir(parents=True, exist_ok=True)
    token = json.dumps(mine)
    while True:
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(token)
            break
        except FileExistsError:
            pass
        try:
            text = path.read_text(encoding="utf-8")
            owner = json.loads(text)
        except FileNotFoundError:
            continue
        except ValueError:  # created but not yet written, or its writer died just then
            text, owner = "", {}
        if _is_gone(owner) or _is_stale(path):
            grave = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, grave)
                if grave.read_text(encoding="utf-8") != text:  # another process was faster: its lock, give it back
                    os.rename(grave, path)
                else:
                    grave.unlink()
            continue
        occupied(owner)

    def beat() -> bool:
        if path.read_text(encoding="utf-8") != token:
            return False
        os.utime(path)
        return True

    def release() -> None:
        if path.read_text(encoding="utf-8") == token:
            path.unlink()

    return beat, release


def _is_stale(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _STALE
    return False


def _take_far(path: Path, mine: dict[str, Any], occupied: Callable[[dict[str, Any]], None]) -> _Taken:
    import tensorstore

    store = tensorstore.KvStore.open(storage.kvstore(path.parent)).result()
    written = lambda: json.dumps(mine | {"beat": time.time()}).encode()
    while True:
        found = store.read(path.name).result()
        owner = json.loads(found.value) if found.state == "value" else {}
        if owner.get("token") == mine["token"]:  # written, though the answer was lost
            generation = found.stamp.generation
            break
        if owner and not _is_gone(owner) and not _is_still(store, path.name, owner, found.stamp.generation):
            occupied(owner)
            continue
        if generation := store.write(path.name, written(), if_equal=found.stamp.generation).result().generation:
            break

    def beat() -> bool:
        nonlocal generation
        generation = store.write(path.name, written(), if_equal=generation).result().generation
        return bool(generation) or _again()

    def _again() -> bool:
        """Say whether the lock is ours after all: a write whose answer was lost is written twice."""
        nonlocal generation
        found = store.read(path.name).result()
        generation = found.stamp.generation
        return found.state == "value" and json.loads(found.value).get("token") == mine["token"]

    def release() -> None:
        store.write(path.name, None, if_equal=generation).result()

    return beat, release


def _is_still(store: Any, name: str, owner: dict[str, Any], generation: bytes) -> bool:
    """Say whether a far lock's owner gives no sign of life: for long by its clock, and for a while by ours."""
    if time.time() - float(owner["beat"]) <= _STALE:
        return False
    time.sleep(_WATCH)
    return store.read(name).result().stamp.generation == generation
