"""Segments of participants that were killed are removed, and those of living ones stay."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from dp_ros.ros.processes.shared_memory import clear_shared_memory


@pytest.mark.parametrize("of", ["fastrtps", "fastdds"])  # in Jazzy, and in Kilted
def test_only_segments_without_an_owner_are_removed(tmp_path: Path, of: str) -> None:
    for name in (f"{of}_dead", f"{of}_lives", f"{of}_port7400", "other"):
        (tmp_path / name).write_bytes(b"x" * 100)
    for name in (f"{of}_dead_el", f"{of}_lives_el", f"{of}_gone_el"):
        (tmp_path / name).touch()
    with (tmp_path / f"{of}_lives_el").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert clear_shared_memory(tmp_path) == 100
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"{of}_lives", f"{of}_lives_el", f"{of}_port7400", "other"]
