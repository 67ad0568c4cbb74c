"""Files and folders that appear whole: a write that fails leaves the old content and nothing beside it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from dp_ros import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_after_writing(path: Path) -> None:
    path.write_text("new")
    raise OSError("disk full")


def test_written_files_are_read_back_and_folders_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    files.write_json(folder / "a.json", {"value": 1})
    files.write_text(folder / "b.txt", "30°")
    files.write_bytes(folder / "c", b"\x00")
    assert json.loads((folder / "a.json").read_text()) == {"value": 1}
    assert (folder / "b.txt").read_text("utf-8") == "30°"
    assert (folder / "c").read_bytes() == b"\x00"
    assert names(folder) == ["a.json", "b.txt", "c"]


def test_place_that_cannot_be_written_to_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "report.json"
    folder.mkdir()
    with pytest.raises(OSError, match=r"report\.json"):
        files.write_json(folder, {"value": 1})
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, object()])
def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "report.json"
    files.write_json(path, {"value": 1})
    with pytest.raises((ValueError, TypeError)):
        files.write_json(path, {"padding": "x" * 100_000, "value": bad})
    assert json.loads(path.read_text()) == {"value": 1}
    assert names(tmp_path) == ["report.json"]


def test_block_that_fails_or_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), files.replacing(path) as staging:
        fail_after_writing(staging)
    with files.replacing(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_folder_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """Also on a file system that cannot swap two folders in one step."""
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    folder = tmp_path / "folder"
    for content in ("first", "second"):
        with files.replacing_folder(folder) as staging:
            (staging / content).write_text(content)
        assert names(folder) == [content]
    with pytest.raises(OSError, match="full"), files.replacing_folder(folder) as staging:
        fail_after_writing(staging / "third")
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["folder"]


def test_folder_comes_back_when_its_replacement_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    with files.replacing_folder(folder) as staging:
        (staging / "old").write_text("old")
    rename = files.os.replace

    def refuse_the_new_one(source: Path, target: Path) -> None:
        if target == folder and not source.name.endswith("-old"):
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    monkeypatch.setattr(files.os, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="No space"), files.replacing_folder(folder) as staging:
        (staging / "new").write_text("new")
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    """A folder that was set aside for one that never came is put back."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("old")
    (tmp_path / "folder").rename(tmp_path / ".folder-1a2b-old")
    (tmp_path / ".folder-1a2b").mkdir()
    (tmp_path / ".state-4711").write_text("half")
    files.clear_leftovers(tmp_path / "folder")
    files.clear_leftovers(tmp_path / "state")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["old"]


def test_a_locked_folder_keeps_others_out_until_its_process_ends(tmp_path: Path) -> None:
    """Even one that is killed."""
    script = (
        "import sys, time\nfrom dp_ros.files import locked\n"
        "with locked(sys.argv[1]): print('inside', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"inside\n"
        with pytest.raises(BlockingIOError), files.locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with files.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
    with files.locked(tmp_path):
        pass
