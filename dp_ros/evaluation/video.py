"""Pictures to H.264 in an mp4 that any browser plays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray


class VideoWriter:
    """`with VideoWriter(path, fps) as video: video.add(pictures)`.

    The file appears whole at the end, or not at all; without pictures there is none. OSError where it cannot
    be written.
    """

    def __init__(self, path: str | Path, fps: int) -> None:
        self.path, self._fps = Path(path), fps
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._staging = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._output: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

    def add(self, pictures: Iterable[NDArray[np.uint8]]) -> None:
        """Append pictures, uint8 (H, W, 3) RGB, all of one size, H and W even."""
        try:
            for picture in pictures:
                if self._output is None or self._stream is None:
                    self._output, self._stream = self._open(*picture.shape[:2])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                self._output.mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _open(self, height: int, width: int) -> tuple[av.container.OutputContainer, av.VideoStream]:
        output = av.open(str(self._staging), "w", format="mp4", options={"movflags": "faststart"})
        stream = output.add_stream("libx264", rate=self._fps, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        return output, stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._output is not None and self._stream is not None:
                try:
                    if kind is None:
                        self._output.mux(self._stream.encode(None))
                finally:
                    self._output.close()
                if kind is None:
                    os.replace(self._staging, self.path)
        except av.FFmpegError as failure:
            raise OSError(failure.errno, failure.strerror, str(self.path)) from failure
        finally:
            self._staging.unlink(missing_ok=True)


def write_video(path: str | Path, pictures: Iterable[NDArray[np.uint8]], fps: int) -> None:
    """One video of `pictures`; see VideoWriter."""
    with VideoWriter(path, fps) as video:
        video.add(pictures)
