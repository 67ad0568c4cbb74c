"""Dataset on disk: zarr v3, flat arrays over all N ticks, and the end of each of E episodes.

| array | shape | content |
|---|---|---|
| `images/<camera>` | (N, H, W, 3) | uint8 RGB |
| `ee_pose` | (N, 3) | measured position [m], base frame |
| `gripper` | (N,) | measured opening, 0 closed to 1 open |
| `action` | (N, ACTION_DIM) | labels: clean commands |
| `command` | (N, ACTION_DIM) | executed commands |
| `episode_ends` | (E,) | tick after the last one of each episode |
| `seed`, `noise`, `tried` | (E,) | the simulator's seed, the injected noise, seeds tried up to this episode |
| `task` | (E,) | index into the attribute `tasks`; `tried` counts the seeds of this task |

Version 1 had one task, in the attribute `collect`, and no array `task`. A file holds FRAMES_PER_CHUNK pictures, which
version 2 compresses FRAMES_PER_READ at a time, so that a window is read alone.

The attribute `fit` names the cameras whose pictures were cropped or padded to their size.

An episode counts once its end is written. Rows after the last end are cut off when writing resumes, so a killed run
loses at most the episode it was writing. The attribute `complete` is set last; readers refuse a dataset without it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dp_ros.data.attributes import fault_of, has_usual_chunks, is_numbers
from dp_ros.errors import UserError, shown
from dp_ros.files import unreadable
from dp_ros.schema import Fit

if TYPE_CHECKING:
    from dp_ros.data.stream import StreamedPictures

FORMAT = "dp_ros-dataset"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, FORMAT_VERSION)
FRAMES_PER_CHUNK = 32  # of a file, which one process writes
FRAMES_PER_READ = 4  # of the smallest part of a file that is read
TASKS = "tasks"  # attribute: the names of the tasks
FIT = "fit"  # attribute: camera -> crop or pad, where its pictures may have been cropped or padded
LOW_DIMENSIONAL = ("ee_pose", "gripper", "action", "command")
_TABLES = ("ee_pose", "action", "command")


class DatasetError(UserError):
    """A folder that is not a usable dataset, or a write that failed; one line with the remedy."""


@dataclass(frozen=True)
class Dataset:
    """All episodes; row n of every flat array is the same tick. The pictures may be on disk."""

    images: Mapping[str, NDArray[np.uint8] | StreamedPictures]  # camera -> (N, H, W, 3)
    ee_pose: NDArray[np.float64]  # (N, 3) [m]
    gripper: NDArray[np.float64]  # (N,)
    action: NDArray[np.float64]  # (N, ACTION_DIM) labels: clean commands
    command: NDArray[np.float64]  # (N, ACTION_DIM) executed commands
    episode_ends: NDArray[np.int64]  # (E,)
    attributes: dict[str, Any]
    seed: NDArray[np.int64] | None = None  # (E,) of the simulator, below 0 where unknown; None: all unknown
    tasks: tuple[str, ...] = ("",)
    task: NDArray[np.int64] | None = None  # (E,) index into `tasks`; None: all are of the first one
    corrected: NDArray[np.bool_] | None = None  # (E,) the expert took over from a policy; None: never

    def __len__(self) -> int:
        return len(self.action)

    @property
    def task_of_episode(self) -> NDArray[np.int64]:
        """(E,) index into `tasks`."""
        return np.zeros(len(self.episode_ends), dtype=np.int64) if self.task is None else self.task

    @property
    def is_correction(self) -> NDArray[np.bool_]:
        """(E,) whether each episode is `corrected`."""
        return np.zeros(len(self.episode_ends), dtype=bool) if self.corrected is None else self.corrected


@dataclass(frozen=True)
class OpenDataset(Dataset):
    """A dataset whose pictures are on disk."""

    images: Mapping[str, StreamedPictures]


@dataclass(frozen=True)
class DatasetLayout:
    """Description of a dataset, read without its rows."""

    cameras: dict[str, tuple[int, int]]  # in the order of the recording: (height, width) [px] of its pictures
    rate_hz: float | None
    tasks: tuple[str, ...]  # "" where it is unknown
    ticks: int
    fits: dict[str, Fit] = field(default_factory=dict)  # of the cameras whose pictures were cropped or padded
    markers: bool = False  # the simulator drew goals

    @property
    def task(self) -> str:
        """The only task; empty where there are several, or it is unknown."""
        return self.tasks[0] if len(self.tasks) == 1 else ""


def read_layout(path: str | Path) -> DatasetLayout:
    """Layout of a finished dataset; DatasetError where it is damaged."""
    path = Path(path)
    group = open_finished(path)
    attributes: Any = dict(group.attrs)
    collect = attributes.get("collect", {})
    with damage_in_one_line(path):
        tasks, _ = read_tasks(group)
        pictures: Any = group["images"]
        sizes = {name: (array.shape[1], array.shape[2]) for name, array in sorted(pictures.arrays())}
        ends = _read(group, "episode_ends")
    order = collect.get("cameras", [])
    names = order if set(order) == set(sizes) else list(sizes)
    return DatasetLayout(
        cameras={name: sizes[name] for name in names},
        rate_hz=attributes.get("rate_hz"),
        tasks=tasks,
        ticks=int(ends[-1]) if len(ends) else 0,
        fits=attributes.get(FIT, {}),
        markers=bool(collect.get("markers", False)),
    )


def fits(of_cameras: Mapping[str, Fit]) -> dict[str, dict[str, Fit]]:
    """The attribute `FIT`, which training copies into the policy; none where all pictures kept their aspect ratio."""
    changing: dict[str, Fit] = {camera: fit for camera, fit in of_cameras.items() if fit != "same"}
    return {FIT: changing} if changing else {}


def load(path: str | Path, cameras: tuple[str, ...] | None = None) -> Dataset:
    """Read a whole dataset into memory; DatasetError where it is damaged or lacks one of `cameras`."""
    dataset = open_dataset(path, cameras)
    check_memory(path, dataset.images)
    rest = {each.name: getattr(dataset, each.name) for each in dataclasses.fields(dataset)}
    images = {camera: pictures.load() for camera, pictures in dataset.images.items()}
    return Dataset(**{**rest, "images": images})


def open_dataset(path: str | Path, cameras: tuple[str, ...] | None = None) -> OpenDataset:
    """As `load`, with the pictures on disk."""
    from dp_ros.data.stream import StoredPictures, StreamedPictures

    path = Path(path)
    group = open_finished(path)
    attributes: dict[str, Any] = dict(group.attrs)
    with damage_in_one_line(path):
        ends = _read(group, "episode_ends")
        tasks, task = read_tasks(group)
        if "tried" in group:
            tried = _read(group, "tried")
            attributes["tried"] = int(max(tried[task == i][-1] for i in np.unique(task)))
        attributes = with_task(attributes, tasks)
        pictures: Any = group["images"]
        known = sorted(name for name, _ in pictures.arrays())
        for camera in cameras or ():
            if camera not in known:
                raise DatasetError(f"{path}: has no camera '{camera}'; it has {', '.join(known)}")
        stored = {
            camera: StoredPictures(path, camera, whole_array(group, f"images/{camera}"))
            for camera in cameras or known
        }
        dataset = OpenDataset(
            images={camera: StreamedPictures([each]) for camera, each in stored.items()},
            ee_pose=_read(group, "ee_pose"),
            gripper=_read(group, "gripper"),
            action=_read(group, "action"),
            command=_read(group, "command"),
            episode_ends=ends,
            attributes=attributes,
            seed=_read(group, "seed") if "seed" in group else None,
            tasks=tasks,
            task=task,
            corrected=np.full(len(ends), bool(attributes.get("collect", {}).get("policy"))),
        )
    arrays: list[NDArray[Any]] = [dataset.ee_pose, dataset.gripper, dataset.action, dataset.command]
    lengths = {*map(len, arrays), *(pictures.shape[0] for pictures in dataset.images.values())}
    check_lengths(path, lengths, dataset.episode_ends)
    check_finite(path, {name: getattr(dataset, name) for name in LOW_DIMENSIONAL})
    return dataset


def read_tasks(group: zarr.Group) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(names of the tasks, (E,) index of each episode's), of any version. KeyError and ValueError where damaged."""
    attributes: Any = dict(group.attrs)
    if attributes.get("version") == 1:
        episodes = len(_read(group, "episode_ends")) if "episode_ends" in group else 0
        return (attributes.get("collect", {}).get("task", ""),), np.zeros(episodes, dtype=np.int64)
    tasks = tuple(attributes.get(TASKS, ()))
    task: NDArray[np.int64] = _read(group, "task")
    if len(task) and not (task.min() >= 0 and task.max() < len(tasks)):
        raise ValueError(f"episodes of {task.max() + 1} tasks, {len(tasks)} have a name")
    return tasks, task


def with_task(attributes: dict[str, Any], tasks: tuple[str, ...]) -> dict[str, Any]:
    """The attributes with the task in `collect`, as version 1 had it, where there is only one."""
    if len(tasks) != 1 or not tasks[0]:
        return attributes
    return {**attributes, "collect": {"task": tasks[0], **attributes.get("collect", {})}}


def check_memory(path: str | Path, pictures: Mapping[str, Any]) -> None:
    """DatasetError where the arrays of pictures exceed this machine's memory; the system would end the process."""
    needed = sum(array.nbytes for array in pictures.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise DatasetError(
            f"{path}: its pictures take {needed / 1e9:.1f} GB of memory, this machine has {memory / 1e9:.1f} GB: make "
            "the dataset with smaller pictures (--size), or use fewer cameras"
        )


def open_finished(path: Path) -> zarr.Group:
    """The dataset's zarr group, read-only; DatasetError while it is unfinished."""
    group = open_group(path, mode="r")
    check_attributes(path, group)
    if not group.attrs.get("complete", False):
        raise DatasetError(f"{path}: is unfinished; run the command that made it again to complete it")
    return group


def check_attributes(path: Path, group: zarr.Group) -> None:
    """DatasetError where an attribute cannot be used."""
    if fault := fault_of(group.attrs.asdict()):
        raise DatasetError(f"{path}: its attribute {fault}; make the dataset again")


@contextmanager
def damage_in_one_line(path: Path) -> Iterator[None]:
    """Turn zarr's errors for a missing array or a broken chunk into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except KeyError as error:
        raise DatasetError(f"{path}: the array {error} is missing; make the dataset again") from None
    except Exception as error:  # damaged files raise many kinds
        why = shown(" ".join(str(error).split()) or type(error).__name__, 300)
        raise DatasetError(f"{path}: a chunk cannot be read ({why}); make the dataset again") from None


def whole_array(group: zarr.Group, name: str) -> Any:
    """The zarr array `name`; ValueError where files of chunks are lost, which zarr would read as zeros."""
    array: Any = group[name]
    if not is_numbers(array, 4 if name.startswith("images/") else 2 if name in _TABLES else 1):
        raise ValueError(f"'{name}' is {array.dtype} {array.shape}, no such numbers")
    per_file = (array.shards or array.chunks)[0]
    files = -(-array.shape[0] // per_file)
    store: Any = group.store
    found = [path for path in Path(store.root, group.path, name).rglob("*") if path.is_file()]
    # Before its chunks are counted one by one, and memory is taken: the shape may be of any size.
    if not has_usual_chunks(array, len(found)):
        raise ValueError(f"'{name}' has chunks of {array.chunks} of {array.shape}")
    if files > len(found):
        raise ValueError(f"{files - len(found)} of '{name}' are lost")
    present = array.nchunks_initialized * array.chunks[0] // per_file
    if present != files:
        raise ValueError(f"{files - present} of '{name}' are lost")
    return array


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(whole_array(group, name)[:])


def check_lengths(path: Path, lengths: set[int], ends: NDArray[np.int64]) -> None:
    """DatasetError unless every flat array is as long as the last episode's end, and the ends rise."""
    if len(ends) == 0 or lengths != {int(ends[-1])} or not (np.diff(ends, prepend=0) > 0).all():
        raise DatasetError(f"{path}: its arrays disagree on the number of ticks; make the dataset again")


def check_finite(path: Path, rows: Mapping[str, NDArray[np.float64]]) -> None:
    """DatasetError where a number is not finite."""
    for name, values in rows.items():
        if not np.isfinite(values).all():
            raise DatasetError(f"{path}: '{name}' holds values that are not finite; make the dataset again")


def open_group(path: Path, mode: Any) -> zarr.Group:
    """The zarr group at `path`; DatasetError unless it is a dataset of a version that can be read."""
    if odd := unreadable(path):
        raise DatasetError(f"{odd}: is no file: make the dataset again")
    try:
        # Absolute, because zarr 3.1 removes a relative root wherever it occurs in a member's path.
        # Version 3 alone: the codec of a version 2 may be pickle, which runs code.
        group = zarr.open_group(path.absolute(), mode=mode, zarr_format=3)
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        group = None
    except Exception as error:  # a power failure may leave an empty file; damaged ones raise many kinds
        group = None
        if (path / "zarr.json").is_file():
            why = shown(" ".join(str(error).split()) or type(error).__name__, 300)
            raise DatasetError(
                f"{path}: its zarr.json is damaged ({why}); remove the folder and make the dataset again"
            ) from None
    if group is None or group.attrs.get("format") != FORMAT:
        missing = "does not exist" if not path.exists() else "is not a dp_ros dataset"
        raise DatasetError(f"{path}: {missing}; make one with `dp_ros collect --out {path}`")
    if group.attrs.get("version") not in READABLE_VERSIONS:
        raise DatasetError(
            f"{path}: is of format version {group.attrs.get('version')}, this dp_ros reads up to {FORMAT_VERSION}: "
            "make the dataset again"
        )
    return group
