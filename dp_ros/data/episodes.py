"""A dataset on disk: zarr v3, flat arrays over all ticks, episodes marked by where they end.

`images/<camera>` uint8 (N, H, W, 3), `ee_pose` (N, 3) [m], `gripper` (N,), `action` (N, 4) clean commands,
`command` (N, 4) executed commands, `episode_ends` (E,), `seed` (E,), `noise` (E,), `tried` (E,) seeds behind each
episode. An episode counts once its end is written; whatever lies behind the last end is cut off when writing
resumes, so a killed run loses at most the episode it was writing. `complete` is set last: readers refuse a
dataset without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

FORMAT = "dp_ros-dataset"
FORMAT_VERSION = 1
FRAMES_PER_CHUNK = 32
LOW_DIMENSIONAL = ("ee_pose", "gripper", "action", "command")


class DatasetError(ValueError):
    """A folder that is not a usable dataset, or a write that failed; one line that says what to do."""


@dataclass(frozen=True)
class Dataset:
    """All episodes in memory; row n of every flat array is the same tick."""

    images: dict[str, NDArray[np.uint8]]  # camera -> (N, H, W, 3)
    ee_pose: NDArray[np.float64]  # (N, 3) [m]
    gripper: NDArray[np.float64]  # (N,)
    action: NDArray[np.float64]  # (N, 4) clean commands
    command: NDArray[np.float64]  # (N, 4) executed commands
    episode_ends: NDArray[np.int64]  # (E,)
    attributes: dict[str, Any]
    seed: NDArray[np.int64] | None = (
        None  # (E,) of the simulator, below 0 where not known; None: of no episode
    )

    def __len__(self) -> int:
        return len(self.action)


def load(path: str | Path, cameras: tuple[str, ...] | None = None) -> Dataset:
    """Read a whole dataset into memory; DatasetError says in one line what is wrong with it."""
    path = Path(path)
    group = open_finished(path)
    attributes = dict(group.attrs)
    with damage_in_one_line(path):
        if "tried" in group:
            attributes["tried"] = int(_read(group, "tried")[-1])
        pictures: Any = group["images"]
        known = sorted(name for name, _ in pictures.arrays())
        for camera in cameras or ():
            if camera not in known:
                raise DatasetError(f"{path}: has no camera '{camera}'; it has {', '.join(known)}")
        dataset = Dataset(
            images={camera: _read(group, f"images/{camera}") for camera in cameras or known},
            ee_pose=_read(group, "ee_pose"),
            gripper=_read(group, "gripper"),
            action=_read(group, "action"),
            command=_read(group, "command"),
            episode_ends=_read(group, "episode_ends"),
            attributes=attributes,
            seed=_read(group, "seed") if "seed" in group else None,
        )
    arrays: list[NDArray[Any]] = [dataset.ee_pose, dataset.gripper, dataset.action, dataset.command]
    check_lengths(path, {len(array) for array in [*arrays, *dataset.images.values()]}, dataset.episode_ends)
    check_finite(path, {name: getattr(dataset, name) for name in LOW_DIMENSIONAL})
    return dataset


def open_finished(path: Path) -> zarr.Group:
    """The dataset's group to read from; refused while it is unfinished."""
    group = open_group(path, mode="r")
    if not group.attrs.get("complete", False):
        raise DatasetError(f"{path}: is unfinished; run the command that made it once more to complete it")
    return group


@contextmanager
def damage_in_one_line(path: Path) -> Iterator[None]:
    """What zarr says of a missing array or a broken chunk as a DatasetError."""
    try:
        yield
    except KeyError as error:
        raise DatasetError(f"{path}: the array {error} is missing; make the dataset anew") from None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: a chunk cannot be read ({error}); make the dataset anew") from None


def whole_array(group: zarr.Group, name: str) -> Any:
    """The zarr array `name`; by itself zarr would read zeros where a chunk's file is lost."""
    array: Any = group[name]
    if array.nchunks_initialized != array.nchunks:
        raise ValueError(f"{array.nchunks - array.nchunks_initialized} of '{name}' are lost")
    return array


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(whole_array(group, name)[:])


def check_lengths(path: Path, lengths: set[int], ends: NDArray[np.int64]) -> None:
    """Every flat array has as many ticks as the last episode ends at; ends rise."""
    if len(ends) == 0 or lengths != {int(ends[-1])} or not (np.diff(ends, prepend=0) > 0).all():
        raise DatasetError(f"{path}: its arrays disagree on the number of ticks; make the dataset anew")


def check_finite(path: Path, rows: Mapping[str, NDArray[np.float64]]) -> None:
    for name, values in rows.items():
        if not np.isfinite(values).all():
            raise DatasetError(f"{path}: '{name}' holds values that are not finite; make the dataset anew")


def open_group(path: Path, mode: Any) -> zarr.Group:
    try:
        # Absolute, because zarr 3.1 removes a relative root wherever it occurs in a member's path.
        group = zarr.open_group(path.absolute(), mode=mode)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, ValueError, KeyError):
        group = None
    if group is None or group.attrs.get("format") != FORMAT:
        missing = "does not exist" if not path.exists() else "is not a dp_ros dataset"
        raise DatasetError(f"{path}: {missing}; make one with `dp_ros collect --out {path}`")
    if group.attrs.get("version") != FORMAT_VERSION:
        raise DatasetError(
            f"{path}: is of format version {group.attrs.get('version')}, this dp_ros reads {FORMAT_VERSION}: "
            "make the dataset anew"
        )
    return group
