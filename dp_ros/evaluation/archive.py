"""A folder of results as files small enough to be handed on, and the folder again from them.

The files of the folder, one behind the other, are cut into parts of at most `part_bytes`. `manifest.json` names each
file and each part with its length and SHA-256, so that what comes together is what was sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dp_ros.evaluation.statistics import write_json

FORMATS = ("dp_ros-archive", "dp_ros-parcels")  # the present name first, then older ones
MANIFEST = "manifest.json"
PART_BYTES = 16_000_000
_BLOCK = 1 << 20


class ArchiveError(ValueError):
    """Parts that do not make the folder they came from; one line that says what to do."""


def split(folder: Path, parts: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write `folder` into the folder `parts`, in place of parts that were there; returns the parts.

    The folder is swapped whole: where this fails, the parts that were there still are.
    """
    parts.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{parts.name}-", dir=parts.parent))
    retired = staging.with_name(f"{staging.name}-old")
    try:
        names = _write(folder, staging, part_bytes)
        staging.chmod(0o755)
        if parts.exists():
            os.replace(parts, retired)
        os.replace(staging, parts)
    finally:
        if retired.exists() and not parts.exists():
            os.replace(retired, parts)
        shutil.rmtree(staging, ignore_errors=True)
    if retired.exists():
        for path in retired.iterdir():
            if path.name != MANIFEST and not path.name.startswith("part-"):  # not ours to throw away
                os.replace(path, parts / path.name)
        shutil.rmtree(retired)
    return [parts / name for name in names]


def _write(folder: Path, parts: Path, part_bytes: int) -> list[str]:
    """The parts of `folder` and their manifest; the parts' names."""
    files: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for i, block in enumerate(_cut(_stream(folder, files), part_bytes)):
        path = parts / f"part-{i:03}"
        path.write_bytes(block)
        written.append({"name": path.name, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
    write_json(parts / MANIFEST, {"format": FORMATS[0], "version": 1, "files": files, "parts": written})
    return [str(part["name"]) for part in written]


def join(parts: Path, out: Path) -> list[Path]:
    """Put the folder together at `out`, which must not exist: whole and verified, or not at all."""
    if out.exists():
        raise ArchiveError(f"{out}: exists already: choose another --out")
    manifest = _manifest(parts)
    for part in manifest["parts"]:
        path = parts / part["name"]
        if not path.is_file():
            raise ArchiveError(f"{path}: is missing: copy it anew")
        if path.stat().st_size != part["bytes"] or _sha256(path) != part["sha256"]:
            raise ArchiveError(f"{path}: is not the file that {MANIFEST} names: copy it anew")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        stream = _Reader(_blocks(parts / part["name"] for part in manifest["parts"]))
        for file in manifest["files"]:
            path = staging / _inside(file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                digest = stream.copy(file["bytes"], target)
            if digest != file["sha256"]:
                raise ArchiveError(
                    f"{parts}: {file['path']} does not come out as it went in: copy the parts anew"
                )
        staging.chmod(0o755)
        os.replace(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [out / _inside(file["path"]) for file in manifest["files"]]


def _manifest(parts: Path) -> dict[str, Any]:
    path = parts / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if manifest["format"] not in FORMATS or manifest["version"] != 1:
            raise KeyError
        for entry in manifest["parts"]:
            if Path(entry["name"]).name != entry["name"]:
                raise KeyError
        if sum(f["bytes"] for f in manifest["files"]) != sum(p["bytes"] for p in manifest["parts"]):
            raise KeyError
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise ArchiveError(f"{path}: is not a manifest of `dp_ros campaign run`: copy it anew") from None
    return manifest


def _inside(name: str) -> PurePosixPath:
    """A path that stays in the folder it is joined to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArchiveError(
            f"{MANIFEST}: '{name}' would be written outside of --out: it was not made by dp_ros"
        )
    return path


def _stream(folder: Path, files: list[dict[str, Any]]) -> Iterator[bytes]:
    """The bytes of every file, in the order of their names; `files` is filled on the way."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest, count = hashlib.sha256(), 0
        for block in _blocks([path]):
            digest.update(block)
            count += len(block)
            yield block
        files.append(
            {"path": path.relative_to(folder).as_posix(), "bytes": count, "sha256": digest.hexdigest()}
        )


def _cut(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _blocks(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks([path]):
        digest.update(block)
    return digest.hexdigest()


class _Reader:
    """Blocks read as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def copy(self, count: int, target: Any) -> str:
        """Write the next `count` bytes to `target`; their SHA-256."""
        digest = hashlib.sha256()
        while count:
            block = self._rest or next(self._blocks, b"")
            if not block:
                break
            taken, self._rest = block[:count], block[count:]
            target.write(taken)
            digest.update(taken)
            count -= len(taken)
        return digest.hexdigest()
