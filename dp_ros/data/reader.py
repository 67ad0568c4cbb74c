"""Reader of a finished dataset, one episode in memory at a time; `episodes.load` reads all episodes at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.episodes import (
    LOW_DIMENSIONAL,
    check_finite,
    check_lengths,
    damage_in_one_line,
    open_finished,
    read_tasks,
    whole_array,
    with_task,
)


@dataclass(frozen=True)
class StoredEpisode:
    """One episode of T ticks, as read from a dataset; `DatasetWriter.append` takes it unchanged."""

    seed: int
    noise: float
    tried: int  # seeds tried up to this episode
    images: dict[str, NDArray[np.uint8]]  # camera -> (T, H, W, 3)
    ee_pose: NDArray[np.float64]  # (T, 3) measured position [m]
    gripper: NDArray[np.float64]  # (T,) measured opening
    action: NDArray[np.float64]  # (T, ACTION_DIM) labels: clean commands
    command: NDArray[np.float64]  # (T, ACTION_DIM) executed commands
    task: str = field(default="", kw_only=True)  # empty where it is unknown

    def __len__(self) -> int:
        return len(self.action)


class DatasetReader:
    """`for episode in DatasetReader(path)`. DatasetError where the dataset is unfinished or damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        group = open_finished(self.path)
        self.attributes: dict[str, Any] = dict(group.attrs)
        with damage_in_one_line(self.path):
            pictures: Any = group["images"]
            self.cameras: tuple[str, ...] = tuple(sorted(name for name, _ in pictures.arrays()))
            self._images = {camera: whole_array(group, f"images/{camera}") for camera in self.cameras}
            self._rows = {name: whole_array(group, name) for name in LOW_DIMENSIONAL}
            self.tasks, self._task = read_tasks(group)
            self.attributes = with_task(self.attributes, self.tasks)
            self.ends: NDArray[np.int64] = whole_array(group, "episode_ends")[:]
            self.seed: list[int] = whole_array(group, "seed")[:].tolist()
            self.noise: list[float] = whole_array(group, "noise")[:].tolist()
            in_first_datasets = np.arange(1, len(self.ends) + 1)
            self.tried: list[int] = (
                whole_array(group, "tried")[:] if "tried" in group else in_first_datasets
            ).tolist()
        lengths = {array.shape[0] for array in [*self._rows.values(), *self._images.values()]}
        check_lengths(self.path, lengths, self.ends)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.ends)

    def picture_size(self, camera: str) -> tuple[int, int]:
        """(height, width) in pixels."""
        shape: tuple[int, ...] = self._images[camera].shape
        return shape[1], shape[2]

    def __iter__(self) -> Iterator[StoredEpisode]:
        return (self.episode(index) for index in range(len(self)))

    def episode(self, index: int) -> StoredEpisode:
        ticks = slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
        with damage_in_one_line(self.path):
            rows = {name: np.asarray(array[ticks]) for name, array in self._rows.items()}
            images = {camera: np.asarray(array[ticks]) for camera, array in self._images.items()}
        check_finite(self.path, rows)
        task = self.tasks[self._task[index]]
        return StoredEpisode(
            self.seed[index], self.noise[index], self.tried[index], images, **rows, task=task
        )
