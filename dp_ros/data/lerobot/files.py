"""Numbered files that are filled one after the other: chunk-000/file-000, file-001, and so on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.data.lerobot.arrow import pa, pq
from dp_ros.data.lerobot.layout import (
    DATA_FILE_MB,
    FILES_PER_CHUNK,
    VIDEO_FILE_MB,
    VIDEO_FILE_S,
    VIDEO_PATH,
)
from dp_ros.data.video import Encoding, VideoWriter

Place = dict[str, int]  # {"chunk_index": c, "file_index": f}


def place(number: int) -> Place:
    """Chunk and file of the file `number`."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


class TableFiles:
    """Parquet files of one schema. Each written table is one row group, so that readers can skip it."""

    def __init__(self, root: Path, path: str, limit_bytes: int = DATA_FILE_MB * 2**20) -> None:
        self._root, self._path, self._limit_bytes = root, path, limit_bytes
        self._number, self._bytes = 0, 0
        self._writer: Any = None

    def next_place(self) -> Place:
        """Place of the next table; begins a new file where the current one is full."""
        if self._bytes >= self._limit_bytes:
            self._close()
            self._number, self._bytes = self._number + 1, 0
        return place(self._number)

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            path = self._root / self._path.format(**self.next_place())
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._writer.write_table(table)
        self._bytes += table.nbytes

    def __enter__(self) -> TableFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class VideoFiles:
    """The mp4 files of one camera; an episode never spans two files."""

    def __init__(
        self, root: Path, key: str, fps: int, encoding: Encoding, limit_s: float = VIDEO_FILE_S
    ) -> None:
        self._root, self._key, self._fps, self._encoding = root, key, fps, encoding
        self._limit_frames = limit_s * fps
        self._number = 0
        self._open = ExitStack()
        self._video: VideoWriter | None = None

    def write(self, pictures: NDArray[np.uint8]) -> dict[str, Any]:
        """Append an episode, uint8 (T, H, W, 3); returns its location as columns of `meta/episodes`."""
        video = self._current()
        first = video.frames
        video.add(pictures)
        span_s = {"from_timestamp": first / self._fps, "to_timestamp": video.frames / self._fps}
        return {f"videos/{self._key}/{name}": v for name, v in (place(self._number) | span_s).items()}

    def _current(self) -> VideoWriter:
        video = self._video
        if video and (video.frames >= self._limit_frames or video.bytes_written >= VIDEO_FILE_MB * 2**20):
            self._open.close()
            self._number += 1
            video = None
        if video is None:
            path = self._root / VIDEO_PATH.format(video_key=self._key, **place(self._number))
            video = self._open.enter_context(VideoWriter(path, self._fps, self._encoding))
        self._video = video
        return video

    def __enter__(self) -> VideoFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
