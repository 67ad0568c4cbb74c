"""Mp4 files from pictures, and pictures from mp4 files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from dp_ros.files import replacing


@dataclass(frozen=True)
class Encoding:
    """FFmpeg's encoder, its pixel format and its options."""

    encoder: str
    pixel_format: str
    options: Mapping[str, str] = field(default_factory=dict)


BROWSER = Encoding("libx264", "yuv420p", {"crf": "23", "preset": "veryfast"})  # every browser plays it


class VideoWriter:
    """Writer of one mp4: `with VideoWriter(path, fps) as video: video.add(pictures)`.

    The file appears whole at the end, or not at all. Without pictures there is no file. OSError where it cannot be
    written.
    """

    def __init__(self, path: str | Path, fps: int, encoding: Encoding = BROWSER) -> None:
        self.path, self._fps, self._encoding = Path(path), fps, encoding
        self.frames = 0
        self._file = ExitStack()
        self._staging = self._file.enter_context(replacing(self.path))
        self._output: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def add(self, pictures: Iterable[NDArray[np.uint8]]) -> None:
        """Append pictures, uint8 (H, W, 3) RGB, all of one size; H and W even where the format halves colour."""
        try:
            for picture in pictures:
                if self._output is None or self._stream is None:
                    self._output, self._stream = self._open(*picture.shape[:2])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                self._output.mux(self._stream.encode(frame))
                self.frames += 1
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    @property
    def bytes_written(self) -> int:
        """Size of the file so far, without the frames that the encoder still buffers."""
        return self._staging.stat().st_size if self._output else 0

    def _open(self, height: int, width: int) -> tuple[av.container.OutputContainer, av.VideoStream]:
        output = av.open(str(self._staging), "w", format="mp4", options={"movflags": "faststart"})
        stream = output.add_stream(
            self._encoding.encoder, rate=self._fps, options=dict(self._encoding.options)
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, self._encoding.pixel_format
        return output, stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            try:
                self._close(is_complete=kind is None)
            except av.FFmpegError as failure:
                raise OSError(failure.errno, failure.strerror, str(self.path)) from failure
            if kind is not None:
                self._staging.unlink(missing_ok=True)

    def _close(self, is_complete: bool) -> None:
        if self._output is None or self._stream is None:
            return
        try:
            if is_complete:
                self._output.mux(self._stream.encode(None))
        finally:
            self._output.close()


def write_video(path: str | Path, pictures: Iterable[NDArray[np.uint8]], fps: int) -> None:
    """Write all `pictures` as one video; see VideoWriter."""
    with VideoWriter(path, fps) as video:
        video.add(pictures)


def duration_s(path: str | Path) -> float | None:
    """Duration of a video; None where the file does not tell. OSError where it cannot be opened."""
    try:
        with av.open(str(path)) as container:
            streams = container.streams.video
            if not streams or streams[0].duration is None or streams[0].time_base is None:
                return None
            return float(((streams[0].start_time or 0) + streams[0].duration) * streams[0].time_base)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_pictures(
    path: str | Path, times_s: NDArray[np.float64], tolerance_s: float
) -> Iterator[NDArray[np.uint8]]:
    """The picture nearest to each of the rising `times_s`: uint8 (H, W, 3) RGB.

    The video may have more pictures than there are times: its own rate may be higher, or vary. OSError where the file
    cannot be decoded, ValueError where it has no picture within `tolerance_s` of a time.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("has no video stream")
            stream = container.streams.video[0]
            assert stream.time_base is not None
            before_s = max(float(times_s[0]) - tolerance_s, 0.0)
            container.seek(int(before_s / stream.time_base), stream=stream)  # to the key frame before it
            frames = (frame for frame in container.decode(stream) if frame.time is not None)
            nearest, following = next(frames, None), next(frames, None)
            for time_s in times_s:
                while following is not None and _distance(following, time_s) <= _distance(nearest, time_s):
                    nearest, following = following, next(frames, None)
                if nearest is None or not _distance(nearest, time_s) <= tolerance_s:
                    raise ValueError(f"has no picture at {time_s:.4f} s")
                yield np.asarray(nearest.to_ndarray(format="rgb24"), dtype=np.uint8)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _distance(frame: av.VideoFrame | None, time_s: float) -> float:
    """Time from a frame to `time_s` [s]."""
    return math.inf if frame is None or frame.time is None else abs(frame.time - time_s)
