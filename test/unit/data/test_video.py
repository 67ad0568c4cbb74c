"""Mp4 files: the requested pictures come back, and no incomplete file is left."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.data.video import BROWSER, Encoding, VideoWriter, read_pictures, write_video

FPS = 80
LOSSLESS = Encoding("libx264rgb", "rgb24", {"preset": "veryfast", "g": "4", "bf": "0", "qp": "0"})


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (11, 24, 32, 3), dtype=np.uint8)


def write(path: Path, pictures: NDArray[np.uint8], encoding: Encoding = LOSSLESS) -> Path:
    with VideoWriter(path, FPS, encoding) as video:
        video.add(pictures)
        assert video.frames == len(pictures)
    return path


@pytest.mark.parametrize("first", range(11))
def test_pictures_come_back_from_any_tick_on(tmp_path: Path, pictures: NDArray[np.uint8], first: int) -> None:
    """On, before and after key frames: a seek that misses by one would return the neighbouring picture."""
    path = write(tmp_path / "a.mp4", pictures)
    times_s = np.arange(first, 11) / FPS
    found = list(read_pictures(path, times_s, tolerance_s=0.5 / FPS))
    np.testing.assert_array_equal(found, pictures[first:])


def test_time_without_a_picture_is_refused(tmp_path: Path, pictures: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "a.mp4", pictures)
    for times_s in ([0.0, 11 / FPS], [0.5 / FPS]):
        with pytest.raises(ValueError, match="has no picture at"):
            list(read_pictures(path, np.array(times_s), tolerance_s=0.2 / FPS))


@pytest.mark.parametrize("faster", [2, 3, 5])
def test_a_video_of_a_higher_rate_gives_the_picture_of_each_time(
    tmp_path: Path, pictures: NDArray[np.uint8], faster: int
) -> None:
    """Not the first one that is near enough: that is up to half a period early."""
    path = write(tmp_path / "a.mp4", pictures)
    times_s = np.arange(0, 11, faster) * (1 / FPS)
    found = list(read_pictures(path, times_s, tolerance_s=0.5 * faster / FPS))
    np.testing.assert_array_equal(found, pictures[::faster])


def test_a_video_of_a_varying_rate_gives_the_nearest_picture(
    tmp_path: Path, pictures: NDArray[np.uint8]
) -> None:
    """Phones and webcams do not keep their rate: here picture 3 comes 0.4 periods before the tick, 4 at the tick."""
    tenths = [0, 10, 20, 26, 30, 40, 53, 59, 70, 80, 87]
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264rgb", rate=FPS, options=dict(LOSSLESS.options))
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        stream.codec_context.time_base = Fraction(1, 10 * FPS)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tenths[i], Fraction(1, 10 * FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    found = list(read_pictures(path, np.arange(9) / FPS, tolerance_s=0.5 / FPS))
    np.testing.assert_array_equal(found, pictures[[0, 1, 2, 4, 5, 6, 7, 8, 9]])


def test_other_files_than_videos_are_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video" * 100)
    for broken in (path, tmp_path / "missing.mp4"):
        with pytest.raises(OSError, match=broken.name):
            list(read_pictures(broken, np.zeros(1), tolerance_s=0.1))


def test_video_that_fails_midway_leaves_no_file(tmp_path: Path, pictures: NDArray[np.uint8]) -> None:
    video = VideoWriter(tmp_path / "a.mp4", FPS, BROWSER)
    video.add(pictures)
    video.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    write_video(tmp_path / "b.mp4", [], FPS)
    assert list(tmp_path.iterdir()) == []
