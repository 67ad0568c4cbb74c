"""Cache of exported engines in the user's cache directory: a folder for each checkpoint, engine version and CPU.

The folder's identity is written inside it and compared when it is read, so a folder that was copied from elsewhere is
exported again, not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from dp_ros.documents import read_json
from dp_ros.files import write_json
from dp_ros.policy.checkpoint_config import OOD, read_config, sha256

FORMAT = 3  # of the exported folders; raise it when graphs or constants change
KEPT = 24  # folders; the ones used longest ago are removed
IDENTITY, CONSTANTS = "engine.json", "constants.safetensors"
NOTED = "hashes.json"  # in a folder of compiled files


def cache_root() -> Path:
    """$XDG_CACHE_HOME/dp_ros/engines, by default ~/.cache/dp_ros/engines."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dp_ros" / "engines"


def identity(checkpoint: str | Path, engine: str, version: str) -> dict[str, Any]:
    """Everything that an export depends on: hashes of weights, statistics and config; engine, version and CPU."""
    return {
        "format": FORMAT,
        "checkpoint": {k: v for k, v in read_config(checkpoint)["sha256"].items() if k != OOD},
        "engine": engine,
        "version": version,
        "cpu": cpu(),
    }


def cpu() -> str:
    """Architecture, model and instruction sets of the processor, as a name and a hash."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
    except OSError:
        facts = {}
    name = facts.get("model name", platform.processor() or "unknown")
    features = facts.get("flags", facts.get("Features", ""))
    return f"{platform.machine()} {name} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


def folder_of(wanted: dict[str, Any]) -> Path:
    """Folder of the export with that identity; it need not exist."""
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return cache_root() / f"{wanted['engine']}-{digest[:20]}"


def reserve(folder: Path, size: int) -> None:
    """OSError, with the folder of the cache, where a file of `size` bytes does not fit on its disk.

    A library in C++ that writes to a full disk says so less clearly.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".space-", dir=folder.parent) as file:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(folder.parent)) from None


def seal(folder: Path, wanted: dict[str, Any]) -> None:
    """Write the identity and the hashes of all files into a finished export."""
    files = _hashes(folder)
    (folder / IDENTITY).write_text(json.dumps({"identity": wanted, "files": files}, indent=2) + "\n")


def trusted(compiled: Path) -> Path | None:
    """The folder of what an engine has compiled, without files that have changed since `note`; None: it cannot be made.

    An engine checks the end of such a file, not the weights in it.
    """
    if _is_changed(compiled):
        shutil.rmtree(compiled, ignore_errors=True)
    try:
        compiled.mkdir(exist_ok=True)
    except OSError:  # of a disk that is only read, say
        return None
    return compiled


def note(compiled: Path) -> None:
    """Note the hashes of the files of a `trusted` folder, where there are new ones."""
    with suppress(OSError):
        names = {path.name for path in compiled.iterdir()}
        if NOTED not in names or read_json(compiled / NOTED).keys() != names - {NOTED}:
            write_json(compiled / NOTED, _hashes(compiled))


def _is_changed(compiled: Path) -> bool:
    try:
        return bool(read_json(compiled / NOTED) != _hashes(compiled))
    except (OSError, ValueError):
        return True


def _hashes(compiled: Path) -> dict[str, str]:
    return {
        path.name: sha256(path) for path in sorted(compiled.iterdir()) if path.name not in (IDENTITY, NOTED)
    }


def problem(folder: Path, wanted: dict[str, Any]) -> str | None:
    """Why the export in `folder` cannot be used as `wanted`; None when it can, "" when there is none."""
    path = folder / IDENTITY
    if not path.is_file():
        return ""
    try:
        found = read_json(path)
        files = dict(found["files"])
        if found["identity"] != wanted:
            return "is of other weights, of another version or of another CPU"
        for name, digest in files.items():
            if sha256(folder / name) != digest:
                return f"its {name} is damaged"
    except (OSError, ValueError, KeyError, TypeError):
        return "is damaged"
    with suppress(OSError):  # of another user, say
        os.utime(folder)  # the time of its last use
    return None


def prune(keep: Path) -> None:
    """Remove the exports used longest ago, beyond `KEPT`; never `keep`."""
    folders = [path for path in cache_root().iterdir() if path.is_dir() and not path.name.startswith(".")]
    newest_first = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in newest_first[KEPT:]:
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
