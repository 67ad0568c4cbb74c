"""Pictures of a dataset read from disk when they are needed, so that a dataset may be larger than memory.

A chunk is read and decompressed without zarr, whose overhead is ten times the work itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from dp_ros.data.episodes import damage_in_one_line

Pixels = NDArray[np.uint8]
_ENTRY = np.dtype("<u8")  # a shard ends with (offset, bytes) of each of its chunks, and a checksum of these
_CHECKSUM_BYTES = 4
_AT_ONCE = 64  # chunks


class StoredPictures:
    """Pictures of one camera of one dataset, read chunk by chunk. Threads may read at the same time."""

    def __init__(self, dataset: Path, camera: str, array: Any) -> None:
        """array: the zarr array of the camera's pictures."""
        self.dataset, self._array = dataset, array
        self.shape: tuple[int, ...] = array.shape
        self._per_chunk: int = array.chunks[0]
        self._is_sharded = array.shards is not None
        self._per_file: int = (array.shards or array.chunks)[0]
        self._folder = dataset / "images" / camera / "c"
        self._index: dict[int, NDArray[np.uint64]] = {}  # of shards
        self._zstd = Zstd()
        self._is_plain = _is_plain(array)

    def crops(self, ticks: NDArray[np.int64], corners: NDArray[np.int64], out: Pixels) -> None:
        """Copy a crop of each picture, whose top left corner is in `corners` (N, 2), to `out` (N, h, w, 3)."""
        height, width = out.shape[1:3]
        order = np.argsort(ticks, kind="stable")
        number, chunk = -1, out
        with damage_in_one_line(self.dataset):
            for i in order:
                wanted, row = divmod(int(ticks[i]), self._per_chunk)
                if wanted != number:
                    number, chunk = wanted, self._read(wanted)
                top, left = corners[i]
                out[i] = chunk[row, top : top + height, left : left + width]

    @property
    def block(self) -> int:
        """Number of pictures that `read` gives."""
        return _AT_ONCE * self._per_chunk

    def read(self, first: int) -> Pixels:
        """The `block` pictures from index `first`, a multiple of `block`, on; fewer at the end."""
        size, last = self._per_chunk, min(self.shape[0], first + self.block)
        with damage_in_one_line(self.dataset):
            chunks = [self._read(number) for number in range(first // size, -(-last // size))]
        return np.concatenate(chunks)[: last - first]

    def _read(self, number: int) -> Pixels:
        """The pictures of a chunk; rows after the last picture are of any content."""
        first = number * self._per_chunk
        if not self._is_plain:
            pixels: Pixels = np.asarray(self._array[first : first + self._per_chunk])
            return pixels
        file, member = divmod(first, self._per_file)
        path = self._folder / str(file) / "0" / "0" / "0"
        with path.open("rb", buffering=0) as stream:
            if self._is_sharded:
                offset, size = self._entries(stream, file)[member // self._per_chunk]
                if size > self._per_file * int(np.prod(self.shape[1:])) * 2:
                    raise ValueError(f"{path.name} has lost a part")
                stream.seek(int(offset))
                data = stream.read(int(size))
            else:
                data = stream.read()
        decoded = np.empty((self._per_chunk, *self.shape[1:]), dtype=np.uint8)
        self._zstd.decode(data, out=decoded)  # into memory of the right size, whatever the file declares
        return decoded

    def _entries(self, stream: Any, file: int) -> NDArray[np.uint64]:
        """(offset, bytes) of each chunk of a shard."""
        known = self._index.get(file)
        if known is None:
            count = self._per_file // self._per_chunk
            size = count * 2 * _ENTRY.itemsize
            stream.seek(-(size + _CHECKSUM_BYTES), 2)
            known = np.frombuffer(stream.read(size), dtype=_ENTRY).reshape(count, 2)
            self._index[file] = known
        return known


class StreamedPictures:
    """Pictures of one camera of several datasets, one after another: `shape` (N, H, W, 3)."""

    def __init__(self, parts: Sequence[StoredPictures]) -> None:
        """parts: of pictures of one size."""
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])
        self.nbytes = int(np.prod(self.shape))

    def crops(self, ticks: NDArray[np.int64], corners: NDArray[np.int64], size: tuple[int, int]) -> Pixels:
        """ticks (N,), corners (N, 2): top and left of each crop; size (height, width) -> (N, height, width, 3)."""
        out = np.empty((len(ticks), *size, 3), dtype=np.uint8)
        if len(self.parts) == 1:
            self.parts[0].crops(ticks, corners, out)
            return out
        which = np.searchsorted(self._starts, ticks, side="right") - 1
        for i in np.unique(which):
            chosen = np.flatnonzero(which == i)
            some = np.empty((len(chosen), *size, 3), dtype=np.uint8)
            self.parts[i].crops(ticks[chosen] - self._starts[i], corners[chosen], some)
            out[chosen] = some
        return out

    def copy(self, to: Callable[[int, Pixels], None]) -> None:
        """Give all pictures to `to(index of the first, (n, H, W, 3))`, a part at a time; several threads call it."""

        def copy_block(start: int, part: StoredPictures, first: int) -> None:
            to(start + first, part.read(first))

        blocks = [
            (int(start), part, first)
            for start, part in zip(self._starts[:-1], self.parts, strict=True)
            for first in range(0, part.shape[0], part.block)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda block: copy_block(*block), blocks))

    def load(self) -> Pixels:
        """All pictures in memory."""
        out = np.empty(self.shape, dtype=np.uint8)

        def put(first: int, block: Pixels) -> None:
            out[first : first + len(block)] = block

        self.copy(put)
        return out


def _is_plain(array: Any) -> bool:
    """Whether the array's files are compressed as `DatasetWriter` does it."""
    codecs = array.metadata.codecs
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        if codecs[0].index_location.value != "end":
            return False
        codecs = codecs[0].codecs
    kinds = [type(codec) for codec in codecs]
    return kinds == [BytesCodec, ZstdCodec] and array.dtype == np.uint8
