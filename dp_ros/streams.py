"""Stamped streams (cameras, pose, gripper) to frames at the control rate.

A frame at time t holds, for every stream, the newest sample that is not from the future of t, never one older
than a maximum age. Time is the sensors' own stamps; when a message arrived does not matter. The live node
and anything that reads recorded streams assemble their frames here.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
_ASPECT_TOLERANCE = 0.02


class ImageSizeError(ValueError):
    """A camera whose pictures cannot be made into what the policy takes; one line."""


@dataclass(frozen=True)
class Frame:
    """One observation tick of the arm."""

    stamp_ns: int  # the tick it is for
    images: NDArray[np.uint8]  # (V, H, W, 3) RGB, cameras in the policy's order, at the policy's size
    ee_position_m: NDArray[np.float64]  # (3,) measured, base frame
    gripper: float  # measured opening, 0 closed to 1 open
    sampled_ns: int  # stamp of its oldest sample, at most stamp_ns

    @property
    def state(self) -> NDArray[np.float64]:
        """(4,): ee_x, ee_y, ee_z [m], gripper: the proprioception some policies observe."""
        return np.append(self.ee_position_m, self.gripper)


class Stream(Generic[Value]):
    """The newest samples of one source, ordered by stamp."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._stamps: deque[int] = deque()
        self._values: deque[Value] = deque()

    def put(self, stamp_ns: int, value: Value) -> None:
        """Add a sample; one that comes late is sorted in, one with a stamp already there replaces it. A full
        stream drops its oldest sample."""
        at = bisect.bisect_left(self._stamps, stamp_ns)
        if at < len(self._stamps) and self._stamps[at] == stamp_ns:
            self._values[at] = value
            return
        if len(self._stamps) == self._capacity:
            if at == 0:
                return
            self._stamps.popleft()
            self._values.popleft()
            at -= 1
        self._stamps.insert(at, stamp_ns)
        self._values.insert(at, value)

    def at(self, stamp_ns: int) -> tuple[int, Value] | None:
        """The newest sample not after `stamp_ns`, with its stamp; None when there is none."""
        at = bisect.bisect_right(self._stamps, stamp_ns)
        return (self._stamps[at - 1], self._values[at - 1]) if at else None

    def drop_after(self, stamp_ns: int) -> None:
        """Forget the samples stamped later than `stamp_ns`."""
        while self._stamps and self._stamps[-1] > stamp_ns:
            self._stamps.pop()
            self._values.pop()

    @property
    def newest_ns(self) -> int | None:
        return self._stamps[-1] if self._stamps else None

    def clear(self) -> None:
        self._stamps.clear()
        self._values.clear()


class FrameAssembler:
    """All streams of one arm; makes the frame of a given time."""

    def __init__(self, cameras: tuple[str, ...], max_age_ns: int) -> None:
        self.cameras, self.max_age_ns = cameras, max_age_ns
        self.images: dict[str, Stream[NDArray[np.uint8]]] = {camera: Stream() for camera in cameras}
        self.ee_position_m: Stream[NDArray[np.float64]] = Stream()
        self.gripper: Stream[float] = Stream()
        self._ahead_ns: dict[str, int] = {}  # of streams that sent nothing better since
        self._now_ns = -(2**63)

    def streams(self) -> dict[str, Stream[NDArray[np.uint8]] | Stream[NDArray[np.float64]] | Stream[float]]:
        return {
            **{f"camera {name}": stream for name, stream in self.images.items()},
            "ee_pose": self.ee_position_m,
            "gripper": self.gripper,
        }

    def missing(self, stamp_ns: int) -> list[str]:
        """The streams that have no sample, or only too old a one, for a frame at `stamp_ns`."""
        problems = []
        for name, stream in self.streams().items():
            sample = stream.at(stamp_ns)
            if sample is not None and stamp_ns - sample[0] <= self.max_age_ns:
                if not name.startswith("camera") and not np.isfinite(sample[1]).all():
                    problems.append(f"{name}: not a finite number")
            elif name in self._ahead_ns:
                problems.append(f"{name}: stamped {self._ahead_ns[name] / 1e6:.0f} ms in the future")
            elif sample is None:
                problems.append(f"{name}: nothing received")
            else:
                problems.append(f"{name}: {(stamp_ns - sample[0]) / 1e6:.0f} ms old")
        return problems

    def refuse_future(self, now_ns: int) -> None:
        """Forget samples stamped further after `now_ns`, the time of their arrival, than the maximum age.

        Their clock is wrong. Kept, they would count as new when their time comes, although they were taken long
        before; so would all samples when our own time went back. Not for recorded streams, of which all samples
        are there at once.
        """
        if now_ns < self._now_ns:
            self.clear()
        self._now_ns = now_ns
        for name, stream in self.streams().items():
            newest_ns = stream.newest_ns
            if newest_ns is not None and newest_ns - now_ns > self.max_age_ns:
                self._ahead_ns[name] = newest_ns - now_ns
                stream.drop_after(now_ns + self.max_age_ns)
            elif newest_ns is not None and now_ns - newest_ns <= self.max_age_ns:
                self._ahead_ns.pop(name, None)

    def frame(self, stamp_ns: int) -> Frame | None:
        """The frame at `stamp_ns`, or None while a stream is missing."""
        if self.missing(stamp_ns):
            return None
        samples = [self.images[camera].at(stamp_ns) for camera in self.cameras]
        pose, gripper = self.ee_position_m.at(stamp_ns), self.gripper.at(stamp_ns)
        assert pose is not None
        assert gripper is not None
        pictures = [sample for sample in samples if sample is not None]
        return Frame(
            stamp_ns,
            np.stack([pixels for _, pixels in pictures]),
            pose[1],
            gripper[1],
            sampled_ns=min(pose[0], gripper[0], *(stamp for stamp, _ in pictures)),
        )

    def clear(self) -> None:
        self._ahead_ns.clear()
        for stream in self.streams().values():
            stream.clear()


def fit_image(
    rgb: NDArray[np.uint8], height_px: int, width_px: int, camera: str = "camera"
) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) -> (height_px, width_px, 3), by area. ImageSizeError where that would distort the picture."""
    height, width = rgb.shape[:2]
    if (height, width) == (height_px, width_px):
        return rgb
    if abs(width / height - width_px / height_px) > _ASPECT_TOLERANCE * width_px / height_px:
        raise ImageSizeError(
            f"{camera}: sends {width}x{height} px, the policy takes {width_px}x{height_px}, another aspect ratio: "
            "set the camera's size or crop its pictures before the policy"
        )
    if height < height_px or width < width_px:
        raise ImageSizeError(
            f"{camera}: sends {width}x{height} px, fewer than the {width_px}x{height_px} the policy takes: "
            "raise the camera's resolution"
        )
    return np.asarray(cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
