"""A dataset on disk: zarr v3, flat arrays over all ticks, episodes marked by where they end.

`images/<camera>` uint8 (N, H, W, 3), `ee_pose` (N, 3) [m], `gripper` (N,), `action` (N, 4) clean commands,
`command` (N, 4) executed commands, `episode_ends` (E,), `seed` (E,), `noise` (E,), `tried` (E,) seeds behind each
episode. An episode counts once its end is written; whatever lies behind the last end is cut off when writing
resumes, so a killed run loses at most the episode it was writing. `complete` is set last: readers refuse a
dataset without it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

FORMAT = "dp_ros-dataset"
FORMAT_VERSION = 1
_FRAMES_PER_CHUNK = 32
_EPISODE_ARRAYS = ("episode_ends", "seed", "noise", "tried")


class DatasetError(ValueError):
    """A folder that is not a usable dataset, or a write that failed; one line that says what to do."""


class Episode(Protocol):
    """What the writer appends; `dp_ros.sim.experts.Demonstration` is one."""

    @property
    def seed(self) -> int: ...
    @property
    def noise(self) -> float: ...
    @property
    def images(self) -> Mapping[str, NDArray[np.uint8]]: ...
    @property
    def ee_pose(self) -> NDArray[np.float64]: ...
    @property
    def gripper(self) -> NDArray[np.float64]: ...
    @property
    def action(self) -> NDArray[np.float64]: ...
    @property
    def command(self) -> NDArray[np.float64]: ...


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

    def __len__(self) -> int:
        return len(self.action)


class DatasetWriter:
    """Appends episodes; `with DatasetWriter(...) as writer: writer.append(episode); writer.finish()`."""

    def __init__(self, path: str | Path, attributes: Mapping[str, Any]) -> None:
        """Create `path`, or resume it when it was begun with the same attributes."""
        self.path = Path(path)
        wanted = {"format": FORMAT, "version": FORMAT_VERSION, **attributes}
        if self.path.is_file() or (self.path.exists() and any(self.path.iterdir())):
            self._group = _open_group(self.path, mode="r+")
            found = {k: v for k, v in self._group.attrs.items() if k not in ("complete", "tried")}
            old, new = _dotted(found), _dotted(wanted)
            for key in sorted(set(old) | set(new)):
                if old.get(key) != new.get(key):
                    raise DatasetError(
                        f"{self.path}: was begun with {key} = {old.get(key)!r}, not {new.get(key)!r}: "
                        "give the same settings to go on, or another --out"
                    )
            self._cut_unfinished()
        else:
            self._group = zarr.create_group(
                self.path.absolute(), zarr_format=3, attributes={**wanted, "complete": False}
            )

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DatasetError(
                f"{self.path}: the disk is full; the {self.episodes} finished episodes are kept: "
                "free some space and run the same command to go on"
            ) from error

    @property
    def episodes(self) -> int:
        ends = self._array("episode_ends")
        return 0 if ends is None else int(ends.shape[0])

    @property
    def complete(self) -> bool:
        return bool(self._group.attrs.get("complete", False))

    @property
    def tried(self) -> int:
        """How many seeds were tried, successful or not: where a resumed run goes on."""
        array = self._array("tried")
        tried = int(array[-1]) if array is not None and array.shape[0] else 0
        in_first_datasets: Any = self._group.attrs.get("tried", 0)
        return tried or int(in_first_datasets)

    def append(self, episode: Episode, tried: int) -> None:
        """Write one episode; it counts from the moment this returns. `tried` seeds are behind it."""
        rows: dict[str, NDArray[Any]] = {
            f"images/{camera}": pixels for camera, pixels in episode.images.items()
        }
        for name in ("ee_pose", "gripper", "action", "command"):
            rows[name] = np.asarray(getattr(episode, name), dtype=np.float64)
        length = len(rows["action"])
        if length == 0 or any(len(values) != length for values in rows.values()):
            sizes = {name: len(values) for name, values in rows.items()}
            raise DatasetError(f"{self.path}: an episode's arrays differ in length: {sizes}")
        if self.complete:  # more episodes were asked for than it was completed with
            self._group.attrs["complete"] = False
        start = self._last_end()
        for name, values in rows.items():
            self._write(name, values, at=start)
        count = self.episodes
        self._write("seed", np.array([episode.seed], dtype=np.int64), at=count)
        self._write("noise", np.array([episode.noise], dtype=np.float64), at=count)
        self._write("tried", np.array([tried], dtype=np.int64), at=count)
        self._write("episode_ends", np.array([start + length], dtype=np.int64), at=count)

    def finish(self) -> None:
        """Mark the dataset whole."""
        self._group.attrs["complete"] = True

    def _last_end(self) -> int:
        return int(self._array("episode_ends")[-1]) if self.episodes else 0

    def _array(self, name: str) -> Any:
        """The zarr array, or None; zarr itself cannot say that it is no group."""
        return self._group.get(name)

    def _write(self, name: str, values: NDArray[Any], at: int) -> None:
        # Zeros too are written, so that a chunk without a file is a lost one.
        with zarr.config.set({"array.write_empty_chunks": True}):
            array = self._array(name)
            if array is None:
                per_chunk = _FRAMES_PER_CHUNK if name.startswith("images/") else 4096
                shape, chunks = (0, *values.shape[1:]), (per_chunk, *values.shape[1:])
                array = self._group.create_array(name, shape=shape, dtype=values.dtype, chunks=chunks)
            array.resize((at + len(values), *values.shape[1:]))
            array[at:] = values

    def _cut_unfinished(self) -> None:
        if self.episodes and self._last_end() == 0:  # killed between making room for an end and writing it
            self._array("episode_ends").resize((self.episodes - 1,))
        end, episodes = self._last_end(), self.episodes
        for name, member in self._group.members(max_depth=2):
            if isinstance(member, zarr.Array):
                length = episodes if name in _EPISODE_ARRAYS else end
                member.resize((length, *member.shape[1:]))


def load(path: str | Path, cameras: tuple[str, ...] | None = None) -> Dataset:
    """Read a whole dataset into memory; DatasetError says in one line what is wrong with it."""
    path = Path(path)
    group = _open_group(path, mode="r")
    attributes = dict(group.attrs)
    if not attributes.get("complete", False):
        raise DatasetError(f"{path}: is unfinished; run the command that made it once more to complete it")
    try:
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
        )
    except KeyError as error:
        raise DatasetError(f"{path}: the array {error} is missing; make the dataset anew") from None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: a chunk cannot be read ({error}); make the dataset anew") from None
    _check(path, dataset)
    return dataset


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings side by side: {"collect": {"task": t}} -> {"collect.task": t}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = {f"{key}.{name}": v for name, v in _dotted(value).items()} if isinstance(value, dict) else {}
        flat |= nested or {key: value}
    return flat


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    """A whole array; zarr alone would read zeros where a chunk's file is lost."""
    array: Any = group[name]
    if array.nchunks_initialized != array.nchunks:
        raise ValueError(f"{array.nchunks - array.nchunks_initialized} of '{name}' are lost")
    return np.asarray(array[:])


def _check(path: Path, dataset: Dataset) -> None:
    ends, length = dataset.episode_ends, len(dataset)
    arrays: list[NDArray[Any]] = [dataset.ee_pose, dataset.gripper, dataset.command, *dataset.images.values()]
    sizes = {len(array) for array in arrays}
    if sizes != {length} or len(ends) == 0 or ends[-1] != length or not (np.diff(ends, prepend=0) > 0).all():
        raise DatasetError(f"{path}: its arrays disagree on the number of ticks; make the dataset anew")
    for name in ("ee_pose", "gripper", "action", "command"):
        if not np.isfinite(getattr(dataset, name)).all():
            raise DatasetError(f"{path}: '{name}' holds values that are not finite; make the dataset anew")


def _open_group(path: Path, mode: Any) -> zarr.Group:
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
