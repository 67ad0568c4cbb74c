"""Writer of pictures into reserved rows of a dataset, chunk by chunk, one process for each bag.

Two bags may share a chunk. Their rows of this chunk are returned instead, for one process to write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from dp_ros.data.episodes import FRAMES_PER_CHUNK


class PictureRows:
    """Rows [start, stop) of `images/<camera>`. Each row is put once; rows of unfinished chunks stay in memory."""

    def __init__(self, path: str | Path, camera: str, start: int, stop: int) -> None:
        group = zarr.open_group(Path(path).absolute(), mode="r+")
        self._array: Any = group[f"images/{camera}"]
        self._start, self._stop = start, stop
        self._open: dict[int, dict[int, NDArray[np.uint8]]] = {}  # chunk -> row -> picture
        self.edges: dict[int, NDArray[np.uint8]] = {}  # row -> picture, of chunks shared with a neighbour

    def put(self, row: int, picture: NDArray[np.uint8]) -> None:
        """Add a picture of the array's size. A chunk is written, and its memory freed, with its last row."""
        chunk = row // FRAMES_PER_CHUNK
        first, last = chunk * FRAMES_PER_CHUNK, (chunk + 1) * FRAMES_PER_CHUNK
        if first < self._start or last > self._stop:
            self.edges[row] = np.array(picture)
            return
        rows = self._open.setdefault(chunk, {})
        rows[row] = picture
        if len(rows) == FRAMES_PER_CHUNK:
            block = np.stack([rows[r] for r in range(first, last)])
            with zarr.config.set({"array.write_empty_chunks": True}):
                self._array[first:last] = block
            del self._open[chunk]
