"""A run's folder: the names of its files, atomic writes, and the lock that keeps two processes apart."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lm.refusal import Refusal

CONFIG = "config.json"
RUN = "run.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.txt"
REPORT = "report.html"
TOKENIZER = "tokenizer"
CHECKPOINTS = "checkpoints"
PROFILE = "profile"
TENSORBOARD = "tensorboard"
WANDB = "wandb"  # W&B itself names its folder so
LOCK = "lock"

_HEARTBEAT = 5.0  # seconds between signs of life
_STALE = 30.0  # seconds without one after which a lock's owner counts as dead


def write(path: Path, text: str) -> None:
    """Write text so that a reader, or a kill at any moment, sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write(path, json.dumps(value, indent=1) + "\n")


def _owner() -> dict[str, str | int]:
    """Return who this process is: a host is a name and, where there are any, a namespace of process ids."""
    with contextlib.suppress(OSError):
        return {"host": f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}", "process": os.getpid()}
    return {"host": socket.gethostname(), "process": os.getpid()}


def _is_dead(path: Path, owner: dict[str, str | int]) -> bool:
    """Say whether the lock's owner is gone: its process, if it ran here, or else its heartbeat."""
    me = _owner()
    if owner.get("host") == me["host"]:
        try:
            os.kill(int(owner["process"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _STALE
    return False


@contextlib.contextmanager
def lock(path: Path, what: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs; a lock whose owner died is taken over.

    Args:
      path: the lock file.
      what: what is locked, for the sentence.
      wait: called with a sentence about once a second while another process has it; None refuses at once.

    Raises:
      Refusal: another process has it and `wait` is None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = json.dumps(_owner() | {"token": uuid.uuid4().hex})
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
        if _is_dead(path, owner):
            grave = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, grave)
                if grave.read_text(encoding="utf-8") != text:  # another process was faster: its lock, give it back
                    os.rename(grave, path)
                else:
                    grave.unlink()
            continue
        host = str(owner.get("host", "?")).partition("/")[0]
        words = f"{what} is in use by process {owner.get('process', '?')} on {host}"
        if wait is None:
            raise Refusal(f"{words}; wait for it to end, or stop it.")
        wait(words)
        time.sleep(1.0)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == token:
                path.unlink()
