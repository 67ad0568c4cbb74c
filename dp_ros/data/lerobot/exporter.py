"""Export of a dataset to a LeRobotDataset v3.0, one episode in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import join
from dp_ros.data.episodes import TASKS
from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot import layout as lerobot
from dp_ros.data.lerobot.arrow import pa
from dp_ros.data.lerobot.files import TableFiles, VideoFiles
from dp_ros.data.lerobot.stats import Stats, as_lists, merge, picture_stats, vector_stats
from dp_ros.data.reader import DatasetReader, StoredEpisode
from dp_ros.data.video import Encoding
from dp_ros.files import replacing_folder
from dp_ros.schema import ExportConfig

OURS_VERSION = 1
_EPISODES_PER_WRITE = 100
# A key frame every second picture, as in LeRobot's recordings, because training reads pictures at random. No B-frames,
# so that pictures are stored in the order of display.
_OPTIONS = {"preset": "veryfast", "g": "2", "bf": "0"}


def encoding(config: ExportConfig) -> Encoding:
    """Lossless RGB, or lossy video with `config.crf`."""
    if config.crf is None:
        return Encoding("libx264rgb", "rgb24", {**_OPTIONS, "qp": "0"})
    return Encoding("libx264", "yuv420p", {**_OPTIONS, "crf": str(config.crf)})


def export_dataset(
    dataset: str | Path,
    out: str | Path,
    config: ExportConfig,
    on_episode: Callable[[int, int], None] | None = None,
) -> DatasetReader:
    """Write `dataset` as a LeRobotDataset to `out`, which appears whole at the end or not at all.

    `on_episode(done, of)` is called after each episode. DatasetError where the dataset cannot be read, LeRobotError
    where it cannot be exported.
    """
    reader, out = DatasetReader(dataset), Path(out)
    fps, task = _fps(reader), config.task or _task(reader)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LeRobotError(f"{out}: exists already: give another --out or remove it")
    for camera in reader.cameras:
        if config.crf is not None and any(side % 2 for side in reader.picture_size(camera)):
            height, width = reader.picture_size(camera)
            raise LeRobotError(
                f"{reader.path}: '{camera}' is {width}x{height} px and lossy video takes even sides only: "
                "leave out --crf"
            )
    with replacing_folder(out) as staging:
        _write(reader, staging, fps, task, config, on_episode)
    return reader


def _fps(reader: DatasetReader) -> int:
    rate_hz = float(reader.attributes.get("rate_hz", 0))
    if not (rate_hz >= 1 and rate_hz.is_integer()):
        raise LeRobotError(
            f"{reader.path}: was recorded at {rate_hz:g} Hz and LeRobot takes whole numbers only: "
            "record it at such a rate"
        )
    return int(rate_hz)


def _task(reader: DatasetReader) -> str:
    """The task of the LeRobotDataset that the dataset was imported from, or the simulator's task name."""
    tasks = reader.attributes.get("lerobot", {}).get("tasks") or reader.tasks
    if len(reader.tasks) > 1:
        raise LeRobotError(
            f"{reader.path}: holds {len(reader.tasks)} tasks and the export writes one: export each from a dataset "
            "of its own"
        )
    if len(tasks) != 1 or not tasks[0]:
        raise LeRobotError(f"{reader.path}: names no task: give one in words, e.g. --task 'open the drawer'")
    return str(tasks[0])


def _write(
    reader: DatasetReader,
    root: Path,
    fps: int,
    task: str,
    config: ExportConfig,
    on_episode: Callable[[int, int], None] | None,
) -> None:
    totals: dict[str, Stats] = {}
    rows: list[dict[str, Any]] = []
    encoded = encoding(config)
    with ExitStack() as files:
        data = files.enter_context(TableFiles(root, lerobot.DATA_PATH))
        episodes = files.enter_context(TableFiles(root, lerobot.EPISODES_PATH))
        videos = {
            camera: files.enter_context(VideoFiles(root, lerobot.IMAGES + camera, fps, encoded))
            for camera in reader.cameras
        }
        for index, episode in enumerate(reader):
            end = int(reader.ends[index])
            columns = _columns(episode, index, end - len(episode), fps)
            location: dict[str, Any] = {f"data/{name}": n for name, n in data.next_place().items()}
            data.write(_table(columns))
            stats = {name: vector_stats(values) for name, values in columns.items()}
            for camera, video in videos.items():
                location |= video.write(episode.images[camera])
                stats[lerobot.IMAGES + camera] = picture_stats(episode.images[camera])
            totals = {name: merge(totals.get(name), part) for name, part in stats.items()}
            rows.append(_row(index, task, len(episode), end, location, stats))
            if len(rows) == _EPISODES_PER_WRITE or index + 1 == len(reader):
                file = {f"meta/episodes/{name}": n for name, n in episodes.next_place().items()}
                episodes.write(pa.Table.from_pylist([row | file for row in rows]))
                rows.clear()
            if on_episode:
                on_episode(index + 1, len(reader))
    lerobot.write_tasks(root, task)
    lerobot.write_json(root / lerobot.STATS, {name: as_lists(part) for name, part in totals.items()})
    lerobot.write_json(root / lerobot.OURS, _ours(reader, encoded))
    sizes = {camera: reader.picture_size(camera) for camera in reader.cameras}
    pixel_format = "gbrp" if config.crf is None else "yuv420p"  # the decoder's name of the format
    features = lerobot.features(sizes, fps, "h264", pixel_format)
    ticks = int(reader.ends[-1])
    lerobot.write_json(root / lerobot.INFO, lerobot.info(features, fps, len(reader), ticks, config.robot))


def _row(
    index: int, task: str, length: int, end: int, location: dict[str, Any], stats: dict[str, Stats]
) -> dict[str, Any]:
    """The row of one episode in `meta/episodes`: its location and its statistics."""
    return {
        "episode_index": index,
        "tasks": [task],
        "length": length,
        "dataset_from_index": end - length,
        "dataset_to_index": end,
        **location,
        **{
            f"stats/{feature}/{name}": value
            for feature, part in stats.items()
            for name, value in as_lists(part).items()
        },
    }


def _columns(episode: StoredEpisode, index: int, first: int, fps: int) -> dict[str, NDArray[Any]]:
    """The features of an episode, each (T, D)."""
    frame = np.arange(len(episode))
    state = join(episode.ee_pose, episode.gripper)
    counters: dict[str, NDArray[Any]] = {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full_like(frame, index),
        "index": first + frame,
        "task_index": np.zeros_like(frame),
    }
    return {
        lerobot.STATE: state.astype(np.float32),
        lerobot.ACTION: episode.action.astype(np.float32),
        lerobot.COMMAND: episode.command.astype(np.float32),
        **{name: values[:, None] for name, values in counters.items()},
    }


def _table(columns: dict[str, NDArray[Any]]) -> pa.Table:
    """A table with vectors as lists of a fixed size, and single numbers as scalars."""
    return pa.table(
        {
            name: pa.array(values.ravel())
            if values.shape[1] == 1
            else pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for name, values in columns.items()
        }
    )


def _ours(reader: DatasetReader, encoded: Encoding) -> dict[str, Any]:
    """Facts that LeRobot has no place for, and that an import needs to restore the same dataset."""
    own = ("format", "version", "complete", TASKS)
    attributes = {k: v for k, v in reader.attributes.items() if k not in own}
    return {
        "version": OURS_VERSION,
        "attributes": attributes,
        "lossless_video": encoded.encoder == "libx264rgb",
        "length": np.diff(reader.ends, prepend=0).tolist(),
        "seed": reader.seed,
        "noise": reader.noise,
        "tried": reader.tried,
    }
