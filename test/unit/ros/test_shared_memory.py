"""Segments of participants that were killed are removed, and those of living ones stay."""

from __future__ import annotations

import fcntl
from pathlib import Path

from dp_ros.ros.processes.shared_memory import clear_shared_memory


def test_only_segments_without_an_owner_are_removed(tmp_path: Path) -> None:
    for name in ("fastrtps_dead", "fastrtps_lives", "fastrtps_port7400", "other"):
        (tmp_path / name).write_bytes(b"x" * 100)
    for name in ("fastrtps_dead_el", "fastrtps_lives_el", "fastrtps_gone_el"):
        (tmp_path / name).touch()
    with (tmp_path / "fastrtps_lives_el").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert clear_shared_memory(tmp_path) == 100
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["fastrtps_lives", "fastrtps_lives_el", "fastrtps_port7400", "other"]
