"""A folder's name in, a path or a URL; a Path out, and what object stores do otherwise than disks.

`gs://BUCKET/FOLDER` is a Path of etils; all that is on a disk is one of pathlib's. Where the two differ, it is here.
"""

import base64
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm.refusal import Refusal

_EXTRAS = {"gs": "gcs"}  # scheme → the extra that reads it
_CRC = "crc32c:"  # what an object store knows of every object, so that none is read again to be checked


def place(name: str) -> Path:
    """Return the Path of a name, of a bucket that can be reached.

    Raises:
      Refusal: a URL of a kind that is not known or of no bucket, a bucket that cannot be reached, no extra for it.
    """
    scheme, is_url, rest = name.partition("://")
    if not is_url:
        return Path(name)
    if scheme not in _EXTRAS:
        known = ", ".join(f"{one}://BUCKET/FOLDER" for one in _EXTRAS)
        raise Refusal(f"{name!r} is on no storage that is known: name a folder of a disk, or {known}.")
    if not rest.partition("/")[0]:
        raise Refusal(f"{name!r} names no bucket: write {scheme}://BUCKET/FOLDER.")
    try:
        import gcsfs  # noqa: F401
        from etils import epath
        from fsspec.config import conf
    except ModuleNotFoundError:
        raise Refusal(f"{name!r} is on an object store: pip install 'lm[{_EXTRAS[scheme]}]'.") from None
    conf["gcs"] = {"use_listings_cache": False}  # others write there too
    path = epath.Path(name)
    _reach(f"{scheme}://{rest.partition('/')[0]}")
    return path


@functools.cache
def _reach(bucket: str) -> None:
    """Refuse a bucket that cannot be listed."""
    from etils import epath

    try:
        next(iter(_system(epath.Path(bucket)).ls(bucket, detail=False)), None)
    except FileNotFoundError:
        raise Refusal(f"there is no bucket {bucket}, or not for the one that asks.") from None
    except Exception as error:  # whatever the store, the network or the credentials raise
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refusal(f"{bucket} cannot be read: {words}.") from None


def is_far(path: Path) -> bool:
    """Say whether a path is on an object store: a file there appears whole, and nothing is appended to or renamed."""
    return "://" in str(path)


def absolute(folder: Path) -> Path:
    """Return a folder's one name, whatever the working directory."""
    return folder if is_far(folder) else folder.resolve()


def kvstore(folder: Path) -> dict[str, str]:
    """Return how TensorStore is told of a folder."""
    if not is_far(folder):
        return {"driver": "file", "path": f"{absolute(folder)}/"}
    bucket, _, rest = str(folder).partition("://")[2].partition("/")
    return {"driver": "gcs", "bucket": bucket, "path": f"{rest}/" if rest else ""}


def _system(path: Path) -> Any:
    """Return the file system of a far path, as etils has it."""
    import fsspec

    return fsspec.filesystem("gcs", finalize_on_close=True)


def remove(folder: Path) -> None:
    """Delete a folder and all in it; one that is not there is left so."""
    if not is_far(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        _system(folder).rm(str(folder), recursive=True)


def rename(folder: Path, other: Path) -> None:
    """Give a folder another name beside it; on an object store its objects are copied one by one."""
    if is_far(folder):
        _system(folder).copy(str(folder), str(other), recursive=True)
        remove(folder)
    else:
        os.rename(folder, other)


class Facts(NamedTuple):
    """What a store says of an object: its bytes, its checksum, and its generation, which no other content has."""

    size: int
    crc32c: str
    generation: str


def facts(path: Path) -> dict[str, Facts]:
    """Return the facts of each object in a far folder, by its name there; of an object, by its own name."""
    found = _system(path).find(str(path), detail=True)
    root = str(path).partition("://")[2]
    return {
        name.removeprefix(root).lstrip("/") or path.name: Facts(int(one["size"]), one["crc32c"], one["generation"])
        for name, one in found.items()
    }


def read_into(path: Path, near: Path, count: Callable[[int], None]) -> None:
    """Copy a far file to a disk; `count` hears of the bytes."""
    _system(path).get_file(str(path), str(near), callback=_counting(count))


def write_from(near: Path, path: Path, count: Callable[[int], None]) -> None:
    """Copy a file of a disk to an object store, where it appears when all of it is there."""
    _system(path).put_file(str(near), str(path), callback=_counting(count))


def write(path: Path, data: bytes) -> None:
    """Write an object, whole or not at all: in one request."""
    _system(path).pipe_file(str(path), data)


def _counting(count: Callable[[int], None]) -> Any:
    from fsspec.callbacks import Callback

    class Counting(Callback):
        def absolute_update(self, value: int) -> None:
            count(value - self.value)
            super().absolute_update(value)

        def relative_update(self, inc: int = 1) -> None:
            self.absolute_update(self.value + inc)

    return Counting()


def digests(folder: Path) -> dict[str, str]:
    """Return name → digest of every file in a folder: SHA-256, or what an object store keeps of it."""
    if is_far(folder):
        return {name: _CRC + one.crc32c for name, one in sorted(facts(folder).items())}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def differing(folder: Path, wanted: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Yield of each file that is not as its digest says the path, and whether there is one."""
    known = facts(folder) if is_far(folder) else {}
    for name, digest in wanted.items():
        path = folder / name
        if not (name in known if is_far(folder) else path.is_file()):
            yield path, False
        elif digest.startswith(_CRC):
            if (known[name].crc32c if is_far(folder) else _crc32c(path)) != digest.removeprefix(_CRC):
                yield path, True
        elif _sha256(path) != digest:
            yield path, True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _crc32c(path: Path) -> str:
    """Return the checksum that object stores have, of a file that came from one."""
    try:
        import google_crc32c
    except ModuleNotFoundError:
        raise Refusal(f"{path} was written to an object store; to check it, pip install 'lm[gcs]'.") from None
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            checksum.update(data)
    return base64.b64encode(checksum.digest()).decode()
