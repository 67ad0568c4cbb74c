"""Locations of episodes in LeRobot folders: whole floats are whole, others are refused before a write."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from dp_ros.actions import GRIPPER
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import load
from dp_ros.data.lerobot import LeRobotError, layout
from dp_ros.data.lerobot.arrow import pa, pq
from dp_ros.data.lerobot.exporter import export_dataset
from dp_ros.data.lerobot.importer import import_dataset
from dp_ros.schema import ExportConfig, ImportConfig

LENGTHS = (5, 40, 3)
EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
LEFT = "videos/observation.images.left"


@pytest.fixture
def folder(tmp_path: Path, make_episode: Callable[..., Any]) -> Path:
    """A folder as from another program, three episodes."""
    with DatasetWriter(tmp_path / "data", {"rate_hz": 80.0, "collect": {"task": "any"}}) as writer:
        for i, length in enumerate(LENGTHS):
            episode = make_episode(i, length)
            GRIPPER.of(episode.action)[:] = GRIPPER.of(episode.command)[:] = 0.5
            writer.append(episode, tried=i + 1)
        writer.finish()
    export_dataset(tmp_path / "data", tmp_path / "exported", ExportConfig())
    (tmp_path / "exported" / layout.OURS).unlink()
    return tmp_path / "exported"


def replace(path: Path, name: str, values: list[Any] | None) -> None:
    """Another column `name`; without it for None."""
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    table = table.remove_column(at)
    pq.write_table(table if values is None else table.add_column(at, name, pa.array(values)), path)


def change(name: str, *values: Any) -> Callable[[Path], None]:
    """The last episodes get other values."""

    def apply(root: Path) -> None:
        found = pq.read_table(root / EPISODES)[name].to_pylist()
        replace(root / EPISODES, name, [*found[: len(found) - len(values)], *values])

    return apply


def chain(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda root: [step(root) for step in steps][-1]


def second_file(root: Path) -> None:
    """The last episode points to a file of other pictures, which is too short."""
    shutil.copy(root / LEFT / "chunk-000/file-000.mp4", root / LEFT / "chunk-000/file-001.mp4")
    change(f"{LEFT}/file_index", 1)(root)
    chain(change(f"{LEFT}/from_timestamp", 1.0), change(f"{LEFT}/to_timestamp", 1.0 + 3 / 80))(root)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index of a file": (change(f"{LEFT}/file_index", None), "episode 2 .*file_index = None, not a whole number"),
    "half an index": (change("data/file_index", 0.5), "episode 2 .* data/file_index = 0.5, not a whole number"),
    "an index that is no number": (change("data/chunk_index", "0", "0", "zero"), "episode 0 .*chunk_index = 0, not"),
    "NaN for an index": (change(f"{LEFT}/chunk_index", np.nan), "episode 2 .* not a whole number"),
    "no number of the episode": (change("episode_index", None), "row 2 of meta/episodes has episode_index = None"),
    "no length": (change("length", None), "episode 2 .* length = None"),
    "a file of the data that is not there": (change("data/file_index", 7), "episode 2 in data/chunk-000/file-007"),
    "a video that is not there": (change(f"{LEFT}/file_index", 7), "episode 2 .*file-007.mp4, which does not exist"),
    "pictures of another episode": (
        chain(change(f"{LEFT}/from_timestamp", 0.0), change(f"{LEFT}/to_timestamp", 3 / 80)),
        "episode 0 .* has pictures of episode 2|episode 2 .* has pictures of episode 0",
    ),
    "a span of another length": (change(f"{LEFT}/to_timestamp", 0.9), "episode 2 .* has 3 frames at 80 Hz, but"),
    "a begin that is one picture late": (change(f"{LEFT}/from_timestamp", 46 / 80), "episode 2 .* has 3 frames"),
    "a span after the end of the video": (second_file, r"episode 2 .* ends at 1.0375 s of .*, which lasts 0.6 s"),
    "no begin": (change(f"{LEFT}/from_timestamp", None), "episode 2 .*from_timestamp = None, not a time"),
    "rows of another length": (change("dataset_to_index", 47), "episode 2 .* has length 3, but rows 45 to 47"),
    "a column that is not there": (
        lambda root: replace(root / EPISODES, f"{LEFT}/file_index", None), "episode 0 .* has no .*file_index",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), FAULTS.values(), ids=FAULTS.keys())
def test_wrong_location_is_refused_with_its_episode(
    tmp_path: Path, folder: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(folder)
    with pytest.raises(LeRobotError, match=says) as caught:
        import_dataset(folder, tmp_path / "back", ImportConfig())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_whole_floats_are_whole(tmp_path: Path, folder: Path) -> None:
    import_dataset(folder, tmp_path / "before", ImportConfig())
    for name in ("episode_index", "length", "data/file_index", f"{LEFT}/chunk_index", f"{LEFT}/file_index"):
        replace(
            folder / EPISODES, name, [float(n) for n in pq.read_table(folder / EPISODES)[name].to_pylist()]
        )
    for name in ("episode_index", "frame_index"):
        replace(folder / DATA, name, [float(n) for n in pq.read_table(folder / DATA)[name].to_pylist()])
    import_dataset(folder, tmp_path / "after", ImportConfig())
    before, after = load(tmp_path / "before"), load(tmp_path / "after")
    np.testing.assert_array_equal(after.action, before.action)
    np.testing.assert_array_equal(after.images["left"], before.images["left"])


@pytest.mark.parametrize(("name", "value"), [("episode_index", 1), ("frame_index", 7), ("frame_index", 1.5)])
def test_wrong_counter_of_a_row_is_refused_with_its_episode(
    tmp_path: Path, folder: Path, name: str, value: float
) -> None:
    rows = pq.read_table(folder / DATA)[name].to_pylist()
    replace(folder / DATA, name, [*map(float, rows[:-1]), float(value)])
    with pytest.raises(LeRobotError, match=r"frames of episode [12] are not 0 to"):
        import_dataset(folder, tmp_path / "back", ImportConfig())
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_frames_at_the_rate_are_imported_in_spite_of_jitter(
    folder: Path, tmp_path: Path, jitter: float
) -> None:
    times_s = np.concatenate([(np.arange(n) + jitter * (np.arange(n) % 2)) / 80.0 for n in LENGTHS])
    replace(folder / DATA, "timestamp", times_s.tolist())
    import_dataset(folder, tmp_path / "out", ImportConfig())
    assert len(load(tmp_path / "out")) == sum(LENGTHS)


def test_a_frame_at_another_time_than_its_rate_is_refused_with_its_episode(
    folder: Path, tmp_path: Path
) -> None:
    """Real stamps of the hardware: pictures looked up by frame would be those of other frames."""
    times_s = np.concatenate([np.arange(n) / 80.0 for n in LENGTHS])
    times_s[5 + 20 : 5 + 40] += 0.02
    replace(folder / DATA, "timestamp", times_s.tolist())
    with pytest.raises(
        LeRobotError, match=r"frame 20 of episode 1 has the timestamp 0\.2700 s, at 80 Hz it is 0\.25"
    ):
        import_dataset(folder, tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out").exists()
