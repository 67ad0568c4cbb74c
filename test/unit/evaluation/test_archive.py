"""Archive: the joined folder is the folder that was split, or nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dp_ros.evaluation.archive import ArchiveError, join, split

FILES = {"a/weights": bytes(range(256)) * 9, "a/empty": b"", "report.json": b"{}", "z": b"last"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "results"


@pytest.fixture
def parts(folder: Path, tmp_path: Path) -> Path:
    split(folder, tmp_path / "parts", part_bytes=1000)
    return tmp_path / "parts"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.integers(1, 3000))
def test_every_byte_comes_back_and_no_part_is_too_large(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    place = tmp_path_factory.mktemp("archive")
    parts = split(folder, place / "parts", part_bytes=size)
    assert all(0 < part.stat().st_size <= size for part in parts)
    files = join(place / "parts", place / "out")
    assert {path.relative_to(place / "out").as_posix(): path.read_bytes() for path in files} == FILES


def test_splitting_again_leaves_no_old_parts(folder: Path, parts: Path) -> None:
    before = len(list(parts.iterdir()))
    (folder / "a" / "weights").unlink()
    split(folder, parts, part_bytes=1000)
    assert len(list(parts.iterdir())) < before


@contextmanager
def files_of_500_bytes() -> Iterator[None]:
    """No file may grow larger: what a full disk does to a writer. Around one call only, for pytest writes files too."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_parts_that_were_there_outlive_a_split_that_fails(folder: Path, parts: Path, tmp_path: Path) -> None:
    """They were deleted first: a full disk left neither the old parts nor the new."""
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    (folder / "z").unlink()
    with pytest.raises(OSError, match="large"), files_of_500_bytes():
        split(folder, parts, part_bytes=1000)
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"results", "parts"}


def test_splitting_keeps_what_is_not_its_own(folder: Path, parts: Path) -> None:
    (parts / "note.txt").write_text("sent on Monday")
    split(folder, parts, part_bytes=1000)
    assert (parts / "note.txt").read_text() == "sent on Monday"
    assert {path.name for path in parts.parent.iterdir()} == {"results", "parts"}


@pytest.mark.parametrize("damage", ["missing", "changed", "short"])
def test_damaged_part_is_named_and_nothing_is_written(parts: Path, tmp_path: Path, damage: str) -> None:
    part = parts / "part-001"
    content = part.read_bytes()
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(content[:-1] if damage == "short" else b"x" + content[1:])
    with pytest.raises(ArchiveError, match=r"part-001: is .*copy it again") as caught:
        join(parts, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"results", "parts"}


def test_manifest_cannot_write_outside_of_the_folder(parts: Path, tmp_path: Path) -> None:
    manifest = json.loads((parts / "manifest.json").read_text())
    manifest["files"][-1]["path"] = "../elsewhere"
    (parts / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArchiveError, match="would be written outside"):
        join(parts, tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_manifest_is_refused_and_nothing_is_overwritten(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ArchiveError, match="exists already"):
        join(parts, tmp_path / "there")
    (parts / "manifest.json").write_text("[]")
    with pytest.raises(ArchiveError, match="is not a manifest"):
        join(parts, tmp_path / "out")
    with pytest.raises(ArchiveError, match="cannot be read"):
        join(tmp_path / "results", tmp_path / "out")
