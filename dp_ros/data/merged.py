"""Several datasets as one, for training; their pictures stay on disk where they would not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.episodes import (
    LOW_DIMENSIONAL,
    Dataset,
    DatasetError,
    DatasetLayout,
    OpenDataset,
    open_dataset,
    read_layout,
)
from dp_ros.data.faults import fault_lines
from dp_ros.data.stream import StreamedPictures

Paths = Sequence[str | Path]
UNKNOWN_SEED = -1
_PER_DATASET = ("bags", "convert", "lerobot", "complete", "tried")  # attributes that a merged dataset lacks


def merged_layout(paths: Paths) -> DatasetLayout:
    """The layout of several datasets together. DatasetError where they do not fit one another, in one line."""
    if not paths:
        raise DatasetError("no dataset is given")
    twice = [
        str(path) for path in paths if [Path(p).resolve() for p in paths].count(Path(path).resolve()) > 1
    ]
    if twice:
        raise DatasetError(f"{twice[0]}: is given twice; give each dataset once")
    first, *others = layouts = [read_layout(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if difference := _difference(first, other):
            raise DatasetError(
                f"{path}: {difference.replace('FIRST', str(paths[0]))}: train on datasets of the same "
                "settings, or make one of them again"
            )
    return DatasetLayout(
        cameras=first.cameras,
        rate_hz=first.rate_hz,
        tasks=tuple(dict.fromkeys(task for layout in layouts for task in layout.tasks)),
        ticks=sum(layout.ticks for layout in layouts),
        fits=first.fits,
        markers=first.markers,
    )


def short_name(paths: Paths) -> str:
    """The datasets in a few words: "A, B", or of more than three "A and 4 more"."""
    shown = paths if len(paths) <= 3 else [f"{paths[0]} and {len(paths) - 1} more"]
    return ", ".join(map(str, shown))


def _difference(first: DatasetLayout, other: DatasetLayout) -> str:
    """Reason why two datasets cannot be trained on together; empty if they can."""
    if set(first.cameras) != set(other.cameras):
        return f"has the cameras {', '.join(other.cameras)}, FIRST has {', '.join(first.cameras)}"
    for camera, (height, width) in other.cameras.items():
        if first.cameras[camera] != (height, width):
            wanted = first.cameras[camera]
            return f"camera {camera} is {width}x{height} px, in FIRST {wanted[1]}x{wanted[0]} px"
    if first.rate_hz != other.rate_hz:
        return f"was recorded at {other.rate_hz} Hz, FIRST at {first.rate_hz} Hz"
    if first.fits != other.fits:
        return f"its pictures were fitted as {other.fits or 'same'}, those of FIRST as {first.fits or 'same'}"
    if first.markers != other.markers:
        return f"draws {'markers' if other.markers else 'no markers'}, unlike FIRST"
    return ""


def load_merged(paths: Paths, cameras: tuple[str, ...], memory_bytes: float) -> tuple[Dataset, list[str]]:
    """(the datasets as one, lines about their faults). Pictures of more than `memory_bytes` stay on disk.

    DatasetError where one is damaged or they do not fit one another.
    """
    merged_layout(paths)
    parts = [open_dataset(path, cameras) for path in paths]
    lines = [
        line if len(parts) == 1 else f"{path}: {line}"
        for path, part in zip(paths, parts, strict=True)
        for line in fault_lines(part)
    ]
    streams = {
        camera: StreamedPictures([stored for part in parts for stored in part.images[camera].parts])
        for camera in cameras
    }
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    cached = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    )  # of which the system frees what it must
    in_memory = sum(pictures.nbytes for pictures in streams.values()) <= min(memory_bytes, max(free, cached))
    images: dict[str, Any] = {
        camera: pictures.load() if in_memory else pictures for camera, pictures in streams.items()
    }
    tasks = tuple(dict.fromkeys(task for part in parts for task in part.tasks))
    offsets = np.cumsum([0, *(len(part) for part in parts[:-1])])
    rows: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in LOW_DIMENSIONAL
    }
    return (
        Dataset(
            images=images,
            **rows,
            episode_ends=np.concatenate(
                [part.episode_ends + offset for part, offset in zip(parts, offsets, strict=True)]
            ),
            attributes=parts[0].attributes if len(parts) == 1 else _attributes(parts, tasks),
            seed=_seeds(parts),
            tasks=tasks,
            task=np.concatenate([_renumbered(part, tasks) for part in parts]),
            corrected=np.concatenate([part.is_correction for part in parts]),
        ),
        lines,
    )


def _renumbered(part: Dataset, tasks: tuple[str, ...]) -> NDArray[np.int64]:
    """(E,) index of each episode's task in `tasks`."""
    numbers = np.array([tasks.index(task) for task in part.tasks], dtype=np.int64)
    return numbers[part.task_of_episode]


def _seeds(parts: Sequence[OpenDataset]) -> NDArray[np.int64] | None:
    if all(part.seed is None for part in parts):
        return None
    unknown = [np.full(len(part.episode_ends), UNKNOWN_SEED, dtype=np.int64) for part in parts]
    return np.concatenate(
        [none if part.seed is None else part.seed for part, none in zip(parts, unknown, strict=True)]
    )


def _attributes(parts: Sequence[OpenDataset], tasks: tuple[str, ...]) -> dict[str, Any]:
    """Attributes that all parts share, and in `parts` how each was collected."""
    first, *others = (
        {key: value for key, value in part.attributes.items() if key not in _PER_DATASET} for part in parts
    )
    common = {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}
    collects: list[dict[str, Any]] = [part.attributes.get("collect", {}) for part in parts]
    agreed = {
        key: value for key, value in collects[0].items() if all(c.get(key) == value for c in collects[1:])
    }
    if len(tasks) > 1:
        agreed.pop("task", None)
    each = [
        {**collect, "tasks": list(part.tasks), "episodes": len(part.episode_ends)}
        for part, collect in zip(parts, collects, strict=True)
    ]
    return {**common, "collect": agreed, "parts": each}
