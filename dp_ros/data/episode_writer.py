"""Writer of datasets. An episode counts once its end is written, so that a killed writer loses at most one."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from dp_ros.data.episodes import (
    FORMAT,
    FORMAT_VERSION,
    FRAMES_PER_CHUNK,
    FRAMES_PER_READ,
    LOW_DIMENSIONAL,
    TASKS,
    DatasetError,
    damage_in_one_line,
    open_group,
)
from dp_ros.files import locked

# Zeros are written too, so that a chunk without a file is a lost chunk.
_EVERY_CHUNK = {"array.write_empty_chunks": True}
_EPISODE_ARRAYS = ("episode_ends", "seed", "noise", "tried", "task")


class Episode(Protocol):
    """One episode to append, e.g. `dp_ros.sim.experts.Demonstration`; the shapes are those of `StoredEpisode`."""

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


class DatasetWriter:
    """Appends episodes: `with DatasetWriter(...) as writer: writer.append(episode); writer.finish()`."""

    def __init__(
        self,
        path: str | Path,
        attributes: Mapping[str, Any],
        growing: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """Create `path`, or resume it; DatasetError where it was begun with other attributes.

        `growing` attributes are lists, which may be longer than when it was begun. No other process may write it until
        the writer is left.
        """
        self.path = Path(path)
        with ExitStack() as lock:
            lock.enter_context(self._locked())
            self._open(attributes, dict(growing or {}))
            self._lock = lock.pop_all()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self.path.is_file():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path):
                yield
        except BlockingIOError:
            raise DatasetError(
                f"{self.path}: another process writes this dataset: wait until it ends, or choose another --out"
            ) from None

    def _open(self, attributes: Mapping[str, Any], growing: dict[str, list[Any]]) -> None:
        wanted = {"format": FORMAT, "version": FORMAT_VERSION, **attributes}
        if self.path.is_file() or (self.path.exists() and any(self.path.iterdir())):
            self._group = open_group(self.path, mode="r+")
            own = ("complete", "tried", TASKS, *growing)
            attributes_now = self._migrated(wanted)
            found = {k: v for k, v in attributes_now.items() if k not in own}
            old, new = _dotted(found), _dotted(wanted)
            for key in sorted(set(old) | set(new)):
                if old.get(key) != new.get(key):
                    raise DatasetError(
                        f"{self.path}: was begun with {key} = {old.get(key)!r}, not {new.get(key)!r}: "
                        "give the same settings to resume, or another --out"
                    )
            for key, values in growing.items():
                begun: Any = self._group.attrs.get(key, [])
                if values[: len(begun)] != begun:
                    raise DatasetError(
                        f"{self.path}: was begun with other {key}, or in another order: add new ones after them, or "
                        "choose another --out"
                    )
            if self._group.attrs["version"] == 1:
                self._migrate(attributes_now)
            self._cut_unfinished()
            if any(self._group.attrs.get(key) != values for key, values in growing.items()):
                self._group.attrs.update({**growing, "complete": False})
        else:
            self._group = zarr.create_group(
                self.path.absolute(),
                zarr_format=3,
                attributes={**wanted, **growing, TASKS: [], "complete": False},
            )

    def _migrated(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The dataset's attributes as version 2 has them."""
        attributes: dict[str, Any] = dict(self._group.attrs)
        if attributes["version"] != 1:
            return attributes
        collect = dict(attributes.get("collect", {}))
        task = collect.get("task", "")
        if "task" not in wanted.get("collect", {"task": task}):
            collect.pop("task", None)
        changed = {"collect": collect} if "collect" in attributes else {}
        return {**attributes, **changed, TASKS: [task], "version": FORMAT_VERSION}

    def _migrate(self, attributes: Mapping[str, Any]) -> None:
        """Make the dataset one of version 2; the version is written last."""
        self._group.attrs[TASKS] = attributes[TASKS]
        self._write("task", np.zeros(self.episodes, dtype=np.int64), at=0)
        self._group.attrs.update(dict(attributes))

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._lock.close()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DatasetError(
                f"{self.path}: the disk is full; the {self.episodes} finished episodes are kept: "
                "free some space and run the same command to resume"
            ) from error

    @property
    def episodes(self) -> int:
        ends = self._array("episode_ends")
        return 0 if ends is None else int(ends.shape[0])

    @property
    def complete(self) -> bool:
        return bool(self._group.attrs.get("complete", False))

    def progress(self, task: str) -> tuple[int, int]:
        """(episodes, seeds tried, successful or not) of a task: a resumed run continues after them."""
        of_task, tried = self._array("task"), self._array("tried")
        if task not in self._tasks or of_task is None:
            return 0, 0
        rows = np.flatnonzero(np.asarray(of_task[:]) == self._tasks.index(task))
        in_first_datasets: Any = self._group.attrs.get("tried", len(rows))
        last = int(tried[int(rows[-1])]) if tried is not None and len(rows) else 0
        return len(rows), last or int(in_first_datasets)

    @property
    def kept(self) -> dict[str, int]:
        """Task -> episodes."""
        return {task: self.progress(task)[0] for task in self._tasks}

    @property
    def _tasks(self) -> list[str]:
        tasks: Any = self._group.attrs.get(TASKS, [])
        return list(tasks)

    def _index_of(self, task: str) -> int:
        """Index of a task, which is added where it is new."""
        tasks = self._tasks
        if task not in tasks:
            self._group.attrs[TASKS] = tasks = [*tasks, task]
        return tasks.index(task)

    def append(self, episode: Episode, tried: int, task: str | None = None) -> None:
        """Write one episode; it counts once this returns. `tried`: seeds tried so far, of this task.

        task: None for that in the attribute `collect`, which may be unknown.
        """
        rows: dict[str, NDArray[Any]] = {
            f"images/{camera}": pixels for camera, pixels in episode.images.items()
        }
        for name in LOW_DIMENSIONAL:
            rows[name] = np.asarray(getattr(episode, name), dtype=np.float64)
        length = len(rows["action"])
        if length == 0 or any(len(values) != length for values in rows.values()):
            sizes = {name: len(values) for name, values in rows.items()}
            raise DatasetError(f"{self.path}: an episode's arrays differ in length: {sizes}")
        start = self.ticks
        self._begin_writing()
        for name, values in rows.items():
            self._write(name, values, at=start)
        self._count([start + length], episode.seed, episode.noise, tried, task)

    def reserve(self, ticks: int, pictures: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for `ticks` rows of pictures, (H, W, 3) of each camera, after the rows that count.

        Other processes may then write them, each its own rows (`dp_ros.data.picture_rows`), before `append_reserved`.
        """
        self._begin_writing()
        for camera, shape in pictures.items():
            self._grow(f"images/{camera}", (*shape,), np.dtype(np.uint8), self.ticks + ticks)

    def append_reserved(
        self,
        rows: Mapping[str, NDArray[np.float64]],
        edges: Mapping[str, Mapping[int, NDArray[np.uint8]]],
        ends: NDArray[np.int64],
        *,
        seed: int,
        noise: float,
        tried: int,
    ) -> None:
        """Add the low-dimensional `rows` of reserved pictures; they count as one episode for each of `ends`.

        ends: within the rows. edges: camera -> row -> picture, for chunks that two writers of pictures share.
        """
        start = self.ticks
        for name, values in rows.items():
            self._write(name, np.asarray(values, dtype=np.float64), at=start)
        with zarr.config.set(_EVERY_CHUNK):
            for camera, pictures in edges.items():
                array = self._array(f"images/{camera}")
                for first, block in _runs(pictures):
                    array[first : first + len(block)] = block
        self._count([start + int(end) for end in ends], seed, noise, tried)

    def _begin_writing(self) -> None:
        if self.complete:  # with fewer episodes than are wanted now
            self._group.attrs["complete"] = False

    def _count(self, ends: list[int], seed: int, noise: float, tried: int, task: str | None = None) -> None:
        """Make episodes count; their ends are written last."""
        count, n = self.episodes, len(ends)
        collect: Any = self._group.attrs.get("collect", {})
        index = self._index_of(collect.get("task", "") if task is None else task)
        self._write("task", np.full(n, index, dtype=np.int64), at=count)
        self._write("seed", np.full(n, seed, dtype=np.int64), at=count)
        self._write("noise", np.full(n, noise, dtype=np.float64), at=count)
        self._write("tried", np.full(n, tried, dtype=np.int64), at=count)
        self._write("episode_ends", np.array(ends, dtype=np.int64), at=count)

    def finish(self) -> None:
        """Mark the dataset as complete."""
        self._group.attrs["complete"] = True

    @property
    def ticks(self) -> int:
        """Number of rows that count."""
        return int(self._array("episode_ends")[-1]) if self.episodes else 0

    def _array(self, name: str) -> Any:
        """The zarr array, or None. Any, because zarr types it as an array or a group."""
        with damage_in_one_line(self.path):
            return self._group.get(name)

    def _write(self, name: str, values: NDArray[Any], at: int) -> None:
        with zarr.config.set(_EVERY_CHUNK):
            array = self._grow(name, values.shape[1:], values.dtype, at + len(values))
            array[at:] = values

    def _grow(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], length: int) -> Any:
        """The array, created where it is missing and resized to `length` rows of `shape`."""
        with zarr.config.set(_EVERY_CHUNK):
            array = self._array(name)
            if array is None:
                is_pictures = name.startswith("images/")
                is_sharded = is_pictures and FRAMES_PER_READ < FRAMES_PER_CHUNK
                array = self._group.create_array(
                    name,
                    shape=(0, *shape),
                    dtype=dtype,
                    chunks=(FRAMES_PER_READ if is_pictures else 4096, *shape),
                    shards=(FRAMES_PER_CHUNK, *shape) if is_sharded else None,
                    compressors=ZstdCodec(checksum=True),  # else changed bits may decompress to other numbers
                )
            if array.shape[1:] != shape:
                raise DatasetError(
                    f"{self.path}: '{name}' holds rows of {array.shape[1:]}, not {shape}: use another --out"
                )
            array.resize((length, *shape))
            return array

    def _cut_unfinished(self) -> None:
        if self.episodes:  # a kill after the array of ends grew leaves zeros
            written = int((np.asarray(self._array("episode_ends")[:]) > 0).sum())
            self._array("episode_ends").resize((written,))
        end, episodes = self.ticks, self.episodes
        with damage_in_one_line(self.path):
            members = tuple(self._group.members(max_depth=2))
        for name, member in members:
            if isinstance(member, zarr.Array):
                length = episodes if name in _EPISODE_ARRAYS else end
                member.resize((length, *member.shape[1:]))


def _runs(pictures: Mapping[int, NDArray[np.uint8]]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Blocks of neighbouring rows: (first row, pictures)."""
    rows = sorted(pictures)
    breaks = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1), len(rows)]
    for begin, end in pairwise(breaks):
        if begin < end:
            yield rows[begin], np.stack([pictures[row] for row in rows[begin:end]])


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as one level: {"collect": {"task": t}} -> {"collect.task": t}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = {f"{key}.{name}": v for name, v in _dotted(value).items()} if isinstance(value, dict) else {}
        flat |= nested or {key: value}
    return flat
