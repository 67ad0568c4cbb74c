"""Cache of exported engines: what does not fit is not believed, and what is old is removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dp_ros.inference import cache


@pytest.mark.parametrize("fault", ["other weights", "other CPU", "damaged file", "damaged identity"])
def test_a_cache_that_does_not_fit_is_made_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    wanted = cache.identity(checkpoint, "openvino", "1.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache.folder_of(wanted)
    folder.mkdir(parents=True)
    (folder / "denoiser.bin").write_bytes(b"weights")
    cache.seal(folder, wanted)
    assert cache.problem(folder, wanted) is None
    identity = json.loads((folder / cache.IDENTITY).read_text())
    if fault == "damaged file":
        (folder / "denoiser.bin").write_bytes(b"weighty")
    elif fault == "damaged identity":
        (folder / cache.IDENTITY).write_text("{")
    else:
        key, value = ("cpu", "x") if fault == "other CPU" else ("checkpoint", {})
        identity["identity"][key] = value
        (folder / cache.IDENTITY).write_text(json.dumps(identity))
    assert cache.problem(folder, wanted)


def test_only_the_newest_exports_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = [cache.cache_root() / f"openvino-{i}" for i in range(cache.KEPT + 3)]
    for i, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (i, i))
    cache.prune(keep=folders[0])
    assert [folder.exists() for folder in folders] == [True, False, False, *[True] * cache.KEPT]
