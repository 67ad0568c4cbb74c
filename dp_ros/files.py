"""Files and folders that appear whole: a reader finds the old content or the complete new one.

The new content is written beside its target, brought to the disk and renamed, so that it also survives a power
failure. OSError where it cannot be written; the old content is then untouched.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    with replacing(path) as staging:
        staging.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, data: Any) -> None:
    """Indented JSON; ValueError for NaN and infinity, which JSON has no numbers for."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write a file to; at the end of the block the file replaces `path`.

    Folders above are made. A block that raises, or writes nothing, leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield staging
        if staging.exists():
            sync(staging)
            os.replace(staging, path)
            sync(path.parent)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; at the end of the block it takes the place of `path` in one rename.

    A block that raises leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield staging
        staging.chmod(0o755)
        for member in staging.rglob("*"):
            sync(member)
        sync(staging)
        _put(staging, path)
        sync(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # the old content, or new content that failed


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of an existing folder that they lock, too; BlockingIOError where one is inside.

    The lock ends with its process, however that ends. File systems without locks keep nobody out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # e.g. some network file systems
            pass
        yield
    finally:
        os.close(descriptor)


def unreadable(folder: str | Path) -> Path | None:
    """The first member below `folder` that is no file and no folder, links followed; None where there is none.

    Whoever reads a pipe or a device waits without end, or fills the memory.
    """
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if not (path.is_file() or path.is_dir()):
                return path
    return None


def clear_leftovers(path: str | Path) -> None:
    """Remove what a process that was killed while it wrote the file or folder `path` left beside it."""
    path = Path(path)
    for left in path.parent.glob(f".{path.name}-*"):
        if not left.is_dir():
            left.unlink(missing_ok=True)
        elif left.name.endswith(_RETIRED) and not path.exists():
            os.replace(left, path)  # the process was killed between the two renames
        else:
            shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_RETIRED = "-old"


def _put(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`. What was there is then at `staging`, or removed."""
    if not folder.exists():
        os.replace(staging, folder)
    elif not _exchange(staging, folder):
        # On such a file system `folder` is missing between the two renames.
        retired = staging.with_name(staging.name + _RETIRED)
        os.replace(folder, retired)
        try:
            os.replace(staging, folder)
        except OSError:
            os.replace(retired, folder)
            raise
        shutil.rmtree(retired)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step (Linux); False where the system or the file system cannot."""
    AT_FDCWD, RENAME_EXCHANGE = -100, 2
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and (
        renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0
    )
