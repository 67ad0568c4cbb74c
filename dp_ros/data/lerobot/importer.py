"""A LeRobotDataset v3.0 to a dataset of ours, an episode in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot import layout as lerobot
from dp_ros.data.lerobot.exporter import OURS_VERSION
from dp_ros.data.lerobot.folder import LeRobotFolder
from dp_ros.data.lerobot.mapping import find_cameras, find_columns, to_our_range
from dp_ros.data.reader import StoredEpisode
from dp_ros.schema import ImportConfig
from dp_ros.streams import fit_image

UNKNOWN_SEED = -1  # of episodes that were not made here


def import_dataset(
    folder: str | Path,
    out: str | Path,
    config: ImportConfig,
    on_episode: Callable[[int, int], None] | None = None,
) -> None:
    """Fill the dataset at `out` with the episodes of `folder`; a killed run goes on where it was.

    `on_episode(done, of)` is called after each. What is wrong with the numbers or the mapping is said before
    anything is written: LeRobotError, or DatasetError of what is at `out`.
    """
    source = _Source(LeRobotFolder(folder), config)
    source.check()
    with DatasetWriter(out, source.attributes()) as writer:
        for index in range(writer.episodes, len(source)):
            episode = source.episode(index)
            writer.append(episode, episode.tried)
            if on_episode:
                on_episode(index + 1, len(source))
        writer.finish()


class _Source:
    """A folder and what its features mean."""

    def __init__(self, folder: LeRobotFolder, config: ImportConfig) -> None:
        self._folder, self._config = folder, config
        self._ours = _ours(folder)
        self._columns = find_columns(folder, config, exported_by_us=bool(self._ours))
        self._cameras = find_cameras(folder, config.cameras)

    def __len__(self) -> int:
        """Episodes."""
        return len(self._folder.episodes)

    def attributes(self) -> dict[str, Any]:
        """What the dataset says of itself: all that it said before the export, and where it came from."""
        kept = self._ours.get("attributes", {"rate_hz": self._folder.fps})
        origin = {
            "folder": self._folder.path.resolve().name,
            "tasks": self._folder.tasks,
            **self._config.model_dump(mode="json", exclude_none=True),
        }
        if self._ours:
            origin["lossless_video"] = self._ours.get("lossless_video")
        return {**kept, "lerobot": origin}

    def check(self) -> None:
        """Every number and the first picture of each camera: pictures take hours, these minutes at most."""
        for index in range(len(self)):
            self._numbers(index)
        for camera in self._cameras:
            next(self._pictures(0, camera), None)

    def episode(self, index: int) -> StoredEpisode:
        made: dict[str, Any] = {"seed": UNKNOWN_SEED, "noise": 0.0, "tried": index + 1}
        if self._ours:
            made = {name: self._ours[name][index] for name in made}
        made["images"] = {camera: self._stacked(index, camera) for camera in self._cameras}
        return StoredEpisode(**made, **self._numbers(index))

    def _numbers(self, index: int) -> dict[str, Any]:
        """ee_pose (T, 3), gripper (T,), action and command (T, 4)."""
        numbers = self._folder.numbers(index, [columns.feature for columns in self._columns.values()])
        rows = {name: columns.of(numbers) for name, columns in self._columns.items()}
        for name, values in rows.items():
            if not np.isfinite(values).all():
                raise LeRobotError(
                    f"{self._folder.path}: '{self._columns[name].feature}' of episode {index} holds values that "
                    "are not finite: delete that episode with LeRobot's tools"
                )
        rows["gripper"] = rows["gripper"][:, 0]
        if self._ours:  # in the range they were exported in
            return rows
        where = f"{self._folder.path}: the gripper's values in {{}} of episode {index}"
        given = self._config.gripper_range
        rows["gripper"] = to_our_range(
            rows["gripper"], given, (0, 1), where.format("state"), "--gripper-range"
        )
        given = self._config.action_gripper_range
        for name in ("action", "command"):
            rows[name][:, 3] = to_our_range(
                rows[name][:, 3], given, (-1, 1), where.format(name), "--action-gripper-range"
            )
        return rows

    def _stacked(self, index: int, camera: str) -> NDArray[np.uint8]:
        """(T, H, W, 3); a list of them first would take twice the memory."""
        pictures = self._pictures(index, camera)
        first = next(pictures)
        stacked = np.empty((self._folder.lengths[index], *first.shape), dtype=np.uint8)
        for tick, picture in enumerate(chain([first], pictures)):
            stacked[tick] = picture
        return stacked

    def _pictures(self, index: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        for picture in self._folder.pictures(index, self._cameras[camera]):
            height_px, width_px = picture.shape[:2]
            wanted = (self._config.height_px or height_px, self._config.width_px or width_px)
            yield fit_image(picture, *wanted, camera)


def _ours(folder: LeRobotFolder) -> dict[str, Any]:
    """What `dp_ros export` left for us; empty for a dataset that comes from elsewhere."""
    path = folder.path / lerobot.OURS
    if not path.is_file():
        return {}
    ours = lerobot.read_json(path)
    if ours.get("version") != OURS_VERSION:
        raise LeRobotError(
            f"{path}: is of version {ours.get('version')}, this dp_ros reads {OURS_VERSION}: export anew"
        )
    per_episode = [len(ours.get(name, ())) for name in ("seed", "noise", "tried")]
    if ours.get("length") != folder.lengths or set(per_episode) != {len(folder.lengths)}:
        raise LeRobotError(
            f"{path}: does not describe these episodes, which were changed after the export: remove it to import "
            "them as a dataset from elsewhere"
        )
    return ours
