"""Reader of a LeRobotDataset v3.0: its features, and the numbers and pictures of each episode.

It keeps in memory the location of each episode and the requested columns of one data file, which LeRobot limits to
100 MB. Pictures are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot import layout as lerobot
from dp_ros.data.lerobot.arrow import pa, pq, read_table
from dp_ros.data.lerobot.index import check_videos, whole_episodes
from dp_ros.data.lerobot.info import fault_of_info, stored_path
from dp_ros.data.video import read_pictures
from dp_ros.encoded import decode_picture
from dp_ros.errors import shown
from dp_ros.files import unreadable

_CONVERT = "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=NAME --root=FOLDER --push-to-hub=false"
_PLACE = ("chunk_index", "file_index")
_COUNTERS = ("episode_index", "frame_index")
_TIME = "timestamp"


class LeRobotFolder:
    """A LeRobotDataset on disk. LeRobotError where it is damaged or of another version."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / lerobot.INFO).is_file():
            missing = "has no meta/info.json" if self.path.exists() else "does not exist"
            raise LeRobotError(
                f"{self.path}: {missing}: give the folder of a LeRobotDataset {lerobot.VERSION}"
            )
        if odd := unreadable(self.path):
            raise LeRobotError(f"{odd}: is no file: copy the dataset again")
        self._info = lerobot.read_json(self.path / lerobot.INFO)
        version = str(self._info.get("codebase_version"))
        if version.startswith(("v1", "v2")):
            raise LeRobotError(
                f"{self.path}: is of format {version}, dp_ros reads {lerobot.VERSION}: convert it with "
                f"LeRobot's `{_CONVERT}`"
            )
        if not version.startswith("v3."):
            raise LeRobotError(f"{self.path}: is of format {version}, this dp_ros reads {lerobot.VERSION}")
        if fault := fault_of_info(self._info):
            raise LeRobotError(
                f"{self.path}: {lerobot.INFO} cannot be read ({fault}): copy the dataset again"
            )
        with self._damage_in_one_line(lerobot.INFO):
            self.fps = float(self._info["fps"])
            self.features: dict[str, dict[str, Any]] = dict(self._info["features"])
            expected = int(self._info["total_episodes"])
        with self._damage_in_one_line("meta/episodes"):
            self.episodes = self._read_episodes()
            self.lengths: list[int] = [facts["length"] for facts in self.episodes]
        if not expected or [facts["episode_index"] for facts in self.episodes] != list(range(expected)):
            raise LeRobotError(
                f"{self.path}: meta/info.json counts {expected} episodes, meta/episodes lists "
                f"{len(self.episodes)}: copy the dataset again, or call finalize() where it was recorded"
            )
        with self._damage_in_one_line(lerobot.TASKS):
            self.tasks = lerobot.read_tasks(self.path)
        self._data_file = ""
        self._tables: dict[tuple[str, ...], Any] = {}  # columns -> table, of that file

    def image_features(self) -> list[str]:
        """Names of the features that hold pictures."""
        return [key for key, feature in self.features.items() if feature["dtype"] in ("video", "image")]

    def check_videos(self, features: Iterable[str]) -> None:
        """LeRobotError, with the episode, where `meta/episodes` locates pictures wrongly."""
        for feature in features:
            if self.features[feature]["dtype"] == "video":
                with self._damage_in_one_line(lerobot.INFO):
                    path = str(self._info["video_path"])
                with self._damage_in_one_line(f"videos/{feature}"):
                    check_videos(self.path, path, self.fps, self.episodes, feature)

    def numbers(self, episode: int, features: Iterable[str]) -> dict[str, NDArray[np.float64]]:
        """Feature -> (T, D)."""
        names = tuple(dict.fromkeys(features))
        rows = self._rows(episode, names)
        with self._damage_in_one_line(self._data_file):
            return {name: _numbers(rows[name]) for name in names}

    def pictures(self, episode: int, feature: str) -> Iterator[NDArray[np.uint8]]:
        """The picture of each tick, uint8 (H, W, 3) RGB."""
        if self.features[feature]["dtype"] == "image":
            yield from self._stored_pictures(episode, feature)
            return
        facts = self.episodes[episode]
        with self._damage_in_one_line("meta/episodes"):
            place = {name: facts[f"videos/{feature}/{name}"] for name in _PLACE}
            start_s = float(facts[f"videos/{feature}/from_timestamp"])
            name = stored_path(str(self._info["video_path"]), video_key=feature, **place)
        times_s = start_s + np.arange(self.lengths[episode]) / self.fps
        with self._damage_in_one_line(f"episode {episode} in {name}"):
            yield from read_pictures(self.path / name, times_s, tolerance_s=0.5 / self.fps)

    def _stored_pictures(self, episode: int, feature: str) -> Iterator[NDArray[np.uint8]]:
        """Pictures stored in the table, PNG or JPEG."""
        for stored in self._rows(episode, (feature,))[feature]:
            encoded = stored["bytes"].as_py()
            pixels = decode_picture(encoded, cv2.IMREAD_COLOR) if isinstance(encoded, bytes) else None
            if pixels is None:
                raise LeRobotError(
                    f"{self.path}: a picture of '{feature}' in episode {episode} cannot be decoded: copy the dataset "
                    "again"
                )
            yield np.asarray(pixels[..., ::-1], dtype=np.uint8)

    def _rows(self, episode: int, features: tuple[str, ...]) -> pa.Table:
        """The rows of one episode, in the order of its frames."""
        facts, length = self.episodes[episode], self.lengths[episode]
        with self._damage_in_one_line("meta/episodes"):
            place = {name: facts[f"data/{name}"] for name in _PLACE}
            name = stored_path(str(self._info["data_path"]), **place)
        if name != self._data_file:
            self._data_file, self._tables = name, {}
        with self._damage_in_one_line(f"episode {episode} in {name}"):
            if features not in self._tables:
                self._tables[features] = read_table(self.path / name, [*features, *_COUNTERS, _TIME])
            table = self._tables[features]
            rows = table.take(np.flatnonzero(table["episode_index"].to_numpy() == episode))
            if not np.array_equal(rows["frame_index"].to_numpy(), np.arange(length)):
                raise ValueError(f"the frames of episode {episode} are not 0 to {length - 1}")
            if _TIME in rows.column_names:
                self._check_times(episode, _numbers(rows[_TIME])[:, 0])
        return rows

    def _check_times(self, episode: int, times_s: NDArray[np.float64]) -> None:
        """LeRobotError unless frames are 1 / fps apart: their pictures would be those of other frames."""
        off_s = np.abs(times_s - np.arange(len(times_s)) / self.fps)
        wrong = np.flatnonzero(~(off_s <= 0.5 / self.fps))
        if len(wrong):
            frame = int(wrong[0])
            raise LeRobotError(
                f"{self.path}: frame {frame} of episode {episode} has the timestamp {times_s[frame]:.4f} s, at "
                f"{self.fps:g} Hz it is {frame / self.fps:.4f} s: resample the episodes to one rate, or delete this one"
            )

    def _read_episodes(self) -> list[dict[str, Any]]:
        """The location of each episode, without the statistics, which are the larger part of the files."""
        episodes: list[dict[str, Any]] = []
        for path in sorted((self.path / "meta/episodes").glob("*/*.parquet")):
            names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
            episodes += read_table(path, names).to_pylist()
        return whole_episodes(self.path, episodes)

    @contextmanager
    def _damage_in_one_line(self, part: str) -> Iterator[None]:
        """Turn errors while reading `part` into a LeRobotError that names it."""
        try:
            yield
        except LeRobotError:
            raise
        except Exception as error:  # damaged files raise many kinds
            is_missing = isinstance(error, KeyError) and error.args
            text = f"'{error.args[0]}' is missing" if is_missing else " ".join(str(error).split())
            reason = shown(text or type(error).__name__, 300)
            raise LeRobotError(
                f"{self.path}: {part} cannot be read ({reason}): copy the dataset again"
            ) from None


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of numbers, or of lists of numbers -> (T, D)."""
    values = column.combine_chunks()
    while pa.types.is_nested(values.type):
        values = values.flatten()
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return numbers.reshape(len(column), -1)
