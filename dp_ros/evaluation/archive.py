"""A folder split into small files for a slow or limited connection, and joined again.

The folder's files are concatenated and cut into parts of at most `part_bytes`. `manifest.json` lists every file and
every part with its length and SHA-256, so that the joined folder is verified.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dp_ros.documents import read_json
from dp_ros.errors import UserError
from dp_ros.files import replacing_folder, write_json

FORMATS = ("dp_ros-archive", "dp_ros-parcels")  # the present name first, then older names
MANIFEST = "manifest.json"
PART_BYTES = 16_000_000
_BLOCK = 1 << 20


class ArchiveError(UserError):
    """Parts that cannot be joined."""


def split(folder: Path, parts: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the parts of `folder` to the folder `parts`, which is replaced as a whole; returns the parts' paths.

    Where writing fails, older parts stay as they were. Files of `parts` that are not of an archive are kept.
    """
    with replacing_folder(parts) as staging:
        names = _write(folder, staging, part_bytes)
        for path in parts.iterdir() if parts.exists() else ():
            if path.name != MANIFEST and not path.name.startswith("part-"):  # not a file of an archive
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, staging / path.name)
    return [parts / name for name in names]


def _write(folder: Path, parts: Path, part_bytes: int) -> list[str]:
    """Write parts and manifest; returns the parts' names."""
    files: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for i, block in enumerate(_cut(_stream(folder, files), part_bytes)):
        path = parts / f"part-{i:03}"
        path.write_bytes(block)
        written.append({"name": path.name, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
    write_json(parts / MANIFEST, {"format": FORMATS[0], "version": 1, "files": files, "parts": written})
    return [str(part["name"]) for part in written]


def join(parts: Path, out: Path) -> list[Path]:
    """Join the folder at `out`, which must not exist; returns its files.

    `out` appears whole and verified. ArchiveError where a part is missing or damaged.
    """
    if out.exists():
        raise ArchiveError(f"{out}: exists already: choose another --out")
    manifest = _manifest(parts)
    for part in manifest["parts"]:
        path = parts / part["name"]
        if not path.is_file():
            raise ArchiveError(f"{path}: is missing: copy it again")
        if path.stat().st_size != part["bytes"] or _sha256(path) != part["sha256"]:
            raise ArchiveError(f"{path}: is not the file that {MANIFEST} lists: copy it again")
    with replacing_folder(out) as staging:
        stream = _Reader(_blocks(parts / part["name"] for part in manifest["parts"]))
        for file in manifest["files"]:
            path = staging / _inside(file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                digest = stream.copy(file["bytes"], target)
            if digest != file["sha256"]:
                raise ArchiveError(f"{parts}: {file['path']} is damaged after joining: copy the parts again")
    return [out / _inside(file["path"]) for file in manifest["files"]]


def _manifest(parts: Path) -> dict[str, Any]:
    path = parts / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(path)
        if manifest["format"] not in FORMATS or manifest["version"] != 1:
            raise KeyError
        for entry in (*manifest["parts"], *manifest["files"]):
            is_entry = (
                isinstance(entry["sha256"], str) and type(entry["bytes"]) is int and entry["bytes"] >= 0
            )
            if not is_entry or not isinstance(entry["path" if "path" in entry else "name"], str):
                raise KeyError
        for entry in manifest["parts"]:
            if Path(entry["name"]).name != entry["name"]:
                raise KeyError
        if sum(f["bytes"] for f in manifest["files"]) != sum(p["bytes"] for p in manifest["parts"]):
            raise KeyError
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise ArchiveError(f"{path}: is not a manifest of `dp_ros campaign run`: copy it again") from None
    return manifest


def _inside(name: str) -> PurePosixPath:
    """`name` as a relative path; ArchiveError where it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArchiveError(
            f"{MANIFEST}: '{name}' would be written outside of --out: dp_ros does not write such a manifest"
        )
    return path


def _stream(folder: Path, files: list[dict[str, Any]]) -> Iterator[bytes]:
    """Bytes of all files in the order of their names; adds each file's entry of the manifest to `files`."""
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
    """The same bytes in pieces of `size`; the last may be shorter."""
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
    """A stream of blocks, read by length."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def copy(self, count: int, target: Any) -> str:
        """Write the next `count` bytes to `target`; returns their SHA-256."""
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
