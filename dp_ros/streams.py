"""Stamped streams (cameras, pose, gripper) to frames at the control rate.

A frame at time t holds the newest sample of every stream that is stamped at or before t and not older than a maximum
age. Stamps are the sensors' own; the time of arrival does not matter. The live node and the conversion of bags
assemble their frames here, so both make the same frames.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import join
from dp_ros.poses import orientation_of, position_of

Value = TypeVar("Value")
_OTHER_CLOCK_S = 60.0  # no robot has so old a sample while all is well


@dataclass(frozen=True)
class Frame:
    """One observation tick of the arm."""

    stamp_ns: int  # the tick it is for
    images: tuple[
        NDArray[np.uint8], ...
    ]  # V of (H, W, 3) RGB, in the policy's order, each of its camera's size
    ee_pose: NDArray[np.float64]  # (7,) measured, base frame: x, y, z [m] and quaternion x, y, z, w
    gripper: float  # measured opening, 0 closed to 1 open
    sampled_ns: int  # stamp of its oldest sample, at most stamp_ns
    skew_ns: int = 0  # longest time between the stamps of a picture and of the pose

    @property
    def state(self) -> NDArray[np.float64]:
        """(STATE_DIM,): measured position [m] and gripper opening, which some policies observe."""
        return join(self.ee_position_m, self.gripper)

    @property
    def ee_position_m(self) -> NDArray[np.float64]:
        """(3,) measured, base frame."""
        return position_of(self.ee_pose)

    @property
    def ee_orientation(self) -> NDArray[np.float64]:
        """(4,) measured quaternion x, y, z, w, base frame."""
        return orientation_of(self.ee_pose)


class Sample(NamedTuple, Generic[Value]):
    """One measurement, with its own stamp."""

    stamp_ns: int
    value: Value
    ahead_ns: int = 0  # by how much its message is stamped later, by a clock that was set


@dataclass(frozen=True)
class Selection:
    """The samples that make the frame of one tick."""

    stamp_ns: int
    pictures: tuple[Sample[Any], ...]  # cameras in the policy's order
    ee_pose: Sample[NDArray[np.float64]]  # (7,)
    gripper: Sample[float]

    @property
    def samples(self) -> tuple[Sample[Any], ...]:
        return (*self.pictures, self.ee_pose, self.gripper)

    @property
    def sampled_ns(self) -> int:
        """Stamp of the oldest sample."""
        return min(sample.stamp_ns for sample in self.samples)

    @property
    def skew_ns(self) -> int:
        """Longest time between the stamps of a picture and of the pose."""
        return max(abs(picture.stamp_ns - self.ee_pose.stamp_ns) for picture in self.pictures)


class Stream(Generic[Value]):
    """The newest samples of one source, ordered by stamp."""

    def __init__(self, capacity: int | None = 64) -> None:
        """`capacity` None keeps everything, for recorded streams."""
        self._capacity = capacity
        self._stamps: list[int] = []
        self._samples: list[Sample[Value]] = []

    def put(self, stamp_ns: int, value: Value, ahead_ns: int = 0) -> None:
        """Add a sample, in the order of stamps; it replaces a sample of the same stamp.

        A full stream drops its oldest sample.
        """
        at, sample = bisect.bisect_left(self._stamps, stamp_ns), Sample(stamp_ns, value, ahead_ns)
        if at < len(self._stamps) and self._stamps[at] == stamp_ns:
            self._samples[at] = sample
            return
        if len(self._stamps) == self._capacity:
            if at == 0:
                return
            del self._stamps[0], self._samples[0]
            at -= 1
        self._stamps.insert(at, stamp_ns)
        self._samples.insert(at, sample)

    def at(self, stamp_ns: int) -> Sample[Value] | None:
        """The newest sample not after `stamp_ns`; None when there is none."""
        at = bisect.bisect_right(self._stamps, stamp_ns)
        return self._samples[at - 1] if at else None

    def drop_after(self, stamp_ns: int) -> None:
        """Forget the samples stamped later than `stamp_ns`."""
        while self._stamps and self._stamps[-1] > stamp_ns:
            self._stamps.pop()
            self._samples.pop()

    @property
    def newest_ns(self) -> int | None:
        return self._stamps[-1] if self._stamps else None

    def clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()


class FrameAssembler:
    """All streams of one arm; makes the frame of a given time."""

    def __init__(self, cameras: tuple[str, ...], max_age_ns: int, capacity: int | None = 64) -> None:
        """`capacity` samples of each stream are kept; None keeps all, for recorded streams.

        A stream of `images` holds pictures or references to them (a message, its number in a bag).
        """
        self.cameras, self.max_age_ns = cameras, max_age_ns
        self.images: dict[str, Stream[Any]] = {camera: Stream(capacity) for camera in cameras}
        self.ee_pose: Stream[NDArray[np.float64]] = Stream(capacity)
        self.gripper: Stream[float] = Stream(capacity)
        self._ahead_ns: dict[str, int] = {}  # stream -> how far ahead of our clock its refused stamps are
        self._now_ns = -(2**63)

    def streams(self) -> dict[str, Stream[Any]]:
        return {
            **{f"camera {name}": stream for name, stream in self.images.items()},
            "ee_pose": self.ee_pose,
            "gripper": self.gripper,
        }

    def missing(self, stamp_ns: int) -> list[str]:
        """One line for each stream without a usable sample for a frame at `stamp_ns`: its name and the reason."""
        problems = []
        for name, stream in self.streams().items():
            sample = stream.at(stamp_ns)
            if sample is not None and stamp_ns - sample.stamp_ns <= self.max_age_ns:
                if not name.startswith("camera") and not np.isfinite(sample.value).all():
                    problems.append(f"{name}: not a finite number")
            elif name in self._ahead_ns:
                problems.append(f"{name}: stamped {self._ahead_ns[name] / 1e6:.0f} ms in the future")
            elif sample is None:
                problems.append(f"{name}: nothing received")
            else:
                problems.append(f"{name}: {_age(stamp_ns, sample.stamp_ns)}")
        return problems

    def refuse_future(self, now_ns: int) -> None:
        """Forget samples stamped later than `now_ns` plus the maximum age; call it as samples arrive.

        Their clock is wrong: once our clock reaches their stamps, old samples would count as new. When our own clock
        is set back, all samples are forgotten for the same reason. Not for recorded streams, where all samples are
        there from the start.
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

    def select(self, stamp_ns: int) -> Selection | None:
        """The samples of the frame at `stamp_ns`, or None while a stream is missing."""
        if self.missing(stamp_ns):
            return None
        pictures = [self.images[camera].at(stamp_ns) for camera in self.cameras]
        pose, gripper = self.ee_pose.at(stamp_ns), self.gripper.at(stamp_ns)
        assert pose is not None
        assert gripper is not None
        return Selection(stamp_ns, tuple(p for p in pictures if p is not None), pose, gripper)

    def clear(self) -> None:
        self._ahead_ns.clear()
        for stream in self.streams().values():
            stream.clear()


def _age(now_ns: int, stamp_ns: int) -> str:
    """Age of an old sample in words, with the reason where only a wrong stamp explains it."""
    if stamp_ns == 0:
        return "its messages have no stamp (0): its publisher must stamp them"
    age_s = (now_ns - stamp_ns) / 1e9
    if age_s < _OTHER_CLOCK_S:
        return f"{age_s * 1e3:.0f} ms old"
    return f"{age_s:.0f} s old: its publisher has ended, or stamps by another clock than this node's"


def to_frame(selection: Selection) -> Frame:
    """The frame of a selection whose picture samples hold pixels, uint8 (H, W, 3)."""
    return Frame(
        selection.stamp_ns,
        tuple(picture.value for picture in selection.pictures),
        selection.ee_pose.value,
        selection.gripper.value,
        selection.sampled_ns,
        selection.skew_ns,
    )
