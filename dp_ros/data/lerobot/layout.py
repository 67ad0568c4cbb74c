"""Layout of a LeRobotDataset v3.0 on disk: names, paths, and the files that are not tables of ticks.

`meta/info.json` describes the features. `data/` holds one row for each tick, `videos/` one mp4 for many episodes, and
`meta/episodes/` the location of each episode in both. `meta/dp_ros.json` is our own file, for facts that LeRobot has no
place for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dp_ros import documents
from dp_ros.actions import GRIPPER, PARTS, POSITION
from dp_ros.data.lerobot import LeRobotError
from dp_ros.data.lerobot.arrow import pa, pq, read_table

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200  # LeRobot's own limits
# LeRobot looks pictures up by float32 seconds within 1e-4 s, which is too coarse after about 1,000 s.
VIDEO_FILE_S = 500

INFO, STATS, TASKS, OURS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/dp_ros.json"
_NUMBERED = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES_PATH = f"meta/episodes/{_NUMBERED}.parquet"
DATA_PATH = f"data/{_NUMBERED}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_NUMBERED}.mp4"

STATE, ACTION = "observation.state", "action"
# Without the prefixes "action." and "observation.", by which LeRobot would predict or observe it.
COMMAND = "command"
IMAGES = "observation.images."
_PART_NAMES = {POSITION: ("ee_x", "ee_y", "ee_z"), GRIPPER: ("gripper",)}
VECTOR_NAMES = [name for part in PARTS for name in _PART_NAMES[part]]  # of states, actions and commands


def features(pictures: dict[str, tuple[int, int]], fps: int, codec: str, pixel_format: str) -> dict[str, Any]:
    """The features of our datasets; pictures: camera -> (height, width)."""
    vector = {"dtype": "float32", "shape": [len(VECTOR_NAMES)], "names": VECTOR_NAMES}
    counters = ("frame_index", "episode_index", "index", "task_index")
    return {
        **{
            IMAGES + camera: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": codec,
                    "video.pix_fmt": pixel_format,
                    "video.is_depth_map": False,
                    "video.fps": fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
            for camera, (height, width) in pictures.items()
        },
        **dict.fromkeys((STATE, ACTION, COMMAND), vector),
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in counters},
    }


def info(
    features: dict[str, Any], fps: int, episodes: int, ticks: int, robot: str | None = None
) -> dict[str, Any]:
    """Content of `meta/info.json`."""
    return {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": ticks,
        "total_tasks": 1,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; LeRobotError where the file holds anything else."""
    try:
        content = documents.read_json(path)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise LeRobotError(f"{path}: is not JSON; copy the dataset again")
    return content


def write_tasks(root: Path, task: str) -> None:
    """Write the table of tasks. LeRobot reads it as a pandas frame with the task's words as its index."""
    index = "__index_level_0__"
    described: list[dict[str, Any]] = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in described],
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), index: pa.array([task], pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), root / TASKS)


def read_tasks(root: Path) -> list[str]:
    """The tasks in words, in the order of their index. LeRobot has had two names for the column of words."""
    columns = read_table(root / TASKS).to_pydict()
    (words,) = (values for name, values in columns.items() if name != "task_index")
    return [word for _, word in sorted(zip(columns["task_index"], words, strict=True))]
