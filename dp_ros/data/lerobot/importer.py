"""Import of a LeRobotDataset v3.0 as a dataset, one episode in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import GRIPPER
from dp_ros.data.attributes import fault_of
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import FIT, fits
from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot import layout as lerobot
from dp_ros.data.lerobot.exporter import OURS_VERSION
from dp_ros.data.lerobot.folder import LeRobotFolder
from dp_ros.data.lerobot.info import fault_of_ours
from dp_ros.data.lerobot.mapping import find_cameras, find_columns, to_our_range
from dp_ros.data.reader import StoredEpisode
from dp_ros.pictures import fit_image
from dp_ros.schema import Fit, ImportConfig

UNKNOWN_SEED = -1  # of episodes that were not made by dp_ros


def import_dataset(
    folder: str | Path,
    out: str | Path,
    config: ImportConfig,
    on_episode: Callable[[int, int], None] | None = None,
) -> None:
    """Fill the dataset at `out` with the episodes of `folder`; a killed run is resumed.

    `on_episode(done, of)` is called after each episode. LeRobotError for faults of the numbers or the mapping, before
    anything is written; DatasetError where `out` holds something else.
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
    """The episodes of a LeRobot folder, with our names and ranges."""

    def __init__(self, folder: LeRobotFolder, config: ImportConfig) -> None:
        self._folder, self._config = folder, config
        self._exported = _exported_facts(folder)
        self._columns = find_columns(folder, config, exported_by_us=bool(self._exported))
        self._cameras = find_cameras(folder, config.cameras)
        config.check_cameras(self._cameras, str(folder.path))
        self._fits = {camera: self._fit(camera) for camera in self._cameras}

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._folder.episodes)

    def attributes(self) -> dict[str, Any]:
        """Attributes of the dataset: those it had before an export, and its origin."""
        kept = {**self._exported.get("attributes", {"rate_hz": self._folder.fps})}
        kept.pop(FIT, None)
        origin = {
            "folder": self._folder.path.resolve().name,
            "tasks": self._folder.tasks,
            **self._config.model_dump(mode="json", exclude_none=True),
        }
        if self._exported:
            origin["lossless_video"] = self._exported.get("lossless_video")
        return {**kept, "lerobot": origin, **fits(self._fits)}

    def _fit(self, camera: str) -> Fit:
        """The camera's fit from its own pictures to ours: that before an export, or of this import."""
        before: Fit = self._exported.get("attributes", {}).get(FIT, {}).get(camera, "same")
        now = self._config.target(camera, (1, 1)).fit
        if "same" not in (before, now):
            raise LeRobotError(
                f"{self._folder.path}: '{camera}' was made with fit: {before} before its export, and a policy cannot "
                f"do fit: {now} after it: leave out --fit {now}, or convert the bags with it"
            )
        return before if now == "same" else now

    def check(self) -> None:
        """Check the location of every episode, then read every number and the first picture of each camera.

        This takes minutes at most, where all pictures take hours.
        """
        self._folder.check_videos(self._cameras.values())
        for index in range(len(self)):
            self._numbers(index)
        for camera in self._cameras:
            next(self._pictures(0, camera), None)

    def episode(self, index: int) -> StoredEpisode:
        facts: dict[str, Any] = {"seed": UNKNOWN_SEED, "noise": 0.0, "tried": index + 1}
        if self._exported:
            facts = {name: self._exported[name][index] for name in facts}
        images = {camera: self._stacked(index, camera) for camera in self._cameras}
        return StoredEpisode(**facts, images=images, **self._numbers(index))

    def _numbers(self, index: int) -> dict[str, Any]:
        """ee_pose (T, 3), gripper (T,), action and command (T, ACTION_DIM), in our ranges."""
        numbers = self._folder.numbers(index, [columns.feature for columns in self._columns.values()])
        rows = {name: columns.of(numbers) for name, columns in self._columns.items()}
        for name, values in rows.items():
            if not np.isfinite(values).all():
                raise LeRobotError(
                    f"{self._folder.path}: '{self._columns[name].feature}' of episode {index} holds values that "
                    "are not finite: delete that episode with LeRobot's tools"
                )
        rows["gripper"] = rows["gripper"][:, 0]
        if self._exported:  # its ranges are ours
            return rows
        where = f"{self._folder.path}: the gripper's values in {{}} of episode {index}"
        measured, commanded = self._config.gripper_range, self._config.action_gripper_range
        rows["gripper"] = to_our_range(
            rows["gripper"], measured, (0, 1), where.format("state"), "--gripper-range"
        )
        for name in ("action", "command"):
            gripper = GRIPPER.of(rows[name])
            gripper[...] = to_our_range(
                gripper, commanded, (-1, 1), where.format(name), "--action-gripper-range"
            )
        return rows

    def _stacked(self, index: int, camera: str) -> NDArray[np.uint8]:
        """(T, H, W, 3), filled one picture at a time: stacking a list would take twice the memory."""
        pictures = self._pictures(index, camera)
        first = next(pictures)
        stacked = np.empty((self._folder.lengths[index], *first.shape), dtype=np.uint8)
        for tick, picture in enumerate(chain([first], pictures)):
            stacked[tick] = picture
        return stacked

    def _pictures(self, index: int, camera: str) -> Iterator[NDArray[np.uint8]]:
        for picture in self._folder.pictures(index, self._cameras[camera]):
            target = self._config.target(camera, (picture.shape[0], picture.shape[1]))
            yield fit_image(picture, target, f"camera {camera}")


def _exported_facts(folder: LeRobotFolder) -> dict[str, Any]:
    """Facts that `dp_ros export` wrote into the folder; empty for a dataset that comes from elsewhere."""
    path = folder.path / lerobot.OURS
    if not path.is_file():
        return {}
    facts = lerobot.read_json(path)
    if facts.get("version") != OURS_VERSION:
        raise LeRobotError(
            f"{path}: is of version {facts.get('version')}, this dp_ros reads {OURS_VERSION}: export again"
        )
    if fault := fault_of_ours(facts) or fault_of(facts.get("attributes", {})):
        raise LeRobotError(f"{path}: cannot be read ({fault}): copy the dataset again")
    per_episode = [len(facts.get(name, ())) for name in ("seed", "noise", "tried")]
    if facts.get("length") != folder.lengths or set(per_episode) != {len(folder.lengths)}:
        raise LeRobotError(
            f"{path}: does not describe these episodes, which were changed after the export: remove it to import "
            "them as a dataset from elsewhere"
        )
    return facts
