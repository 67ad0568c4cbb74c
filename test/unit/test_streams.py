"""Frames from streams: samples by stamp, never from the future, never too old."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.poses import make_pose
from dp_ros.streams import Frame, FrameAssembler, Sample, Stream, to_frame

MS = 1_000_000


def filled(stamps: Iterable[int], capacity: int = 64) -> Stream[str]:
    stream: Stream[str] = Stream(capacity)
    for stamp in stamps:
        stream.put(stamp, f"at {stamp}")
    return stream


@given(
    arrivals=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    asked=st.integers(-1, 41),
    capacity=st.integers(1, 8),
)
def test_sample_is_the_newest_kept_one_that_is_not_from_the_future(
    arrivals: list[int], asked: int, capacity: int
) -> None:
    """In any order of arrival, the stream holds the newest `capacity` samples, by stamp."""
    stream = filled(arrivals, capacity)
    kept: list[int] = []
    for stamp in arrivals:
        kept = sorted({*kept, stamp})[-capacity:]
    past = [stamp for stamp in kept if stamp <= asked]
    assert stream.at(asked) == (Sample(past[-1], f"at {past[-1]}") if past else None)
    assert stream.newest_ns == kept[-1]


def test_late_sample_is_sorted_in_also_when_the_stream_is_full() -> None:
    """The stream of a camera is full most of the time, so that late samples must work there."""
    stream = filled([10, 20, 30, 50], capacity=4)
    stream.put(40, "late")
    assert stream.at(45) == Sample(40, "late")
    assert stream.newest_ns == 50
    assert stream.at(15) is None  # the oldest made room
    stream.put(5, "too late")
    assert stream.at(15) is None


def test_sample_with_a_stamp_already_there_replaces_it() -> None:
    stream = filled([10, 20, 30])
    stream.put(20, "again")
    assert stream.at(25) == Sample(20, "again")
    assert stream.at(15) == Sample(10, "at 10")


def test_empty_stream_has_nothing() -> None:
    stream = filled([10])
    stream.clear()
    assert stream.at(100) is None
    assert stream.newest_ns is None


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return make_pose([x, y, z], [0.0, 1.0, 0.0, 0.0])


def picture(value: int) -> np.ndarray:
    return np.full((2, 3, 3), value, dtype=np.uint8)


def frame_at(frames: FrameAssembler, stamp_ns: int) -> Frame | None:
    selection = frames.select(stamp_ns)
    return to_frame(selection) if selection else None


def assembler() -> FrameAssembler:
    """Cameras at 100 and 90 ms, the pose at 110, the gripper at 20; nothing may be older than 100 ms."""
    frames = FrameAssembler(("left", "right"), max_age_ns=100 * MS)
    frames.images["left"].put(100 * MS, picture(1))
    frames.images["right"].put(90 * MS, picture(2))
    frames.ee_pose.put(110 * MS, pose(0.1, 0.2, 0.3))
    frames.gripper.put(20 * MS, 0.5)
    return frames


def test_frame_holds_every_stream_in_the_order_of_the_policy() -> None:
    frame = frame_at(assembler(), 120 * MS)
    assert frame is not None
    np.testing.assert_array_equal(frame.images, np.stack([picture(1), picture(2)]))
    np.testing.assert_array_equal(frame.state, [0.1, 0.2, 0.3, 0.5])
    assert frame.stamp_ns == 120 * MS
    assert frame.sampled_ns == 20 * MS  # the oldest: the gripper


def test_frame_never_holds_a_sample_from_its_future() -> None:
    frames = assembler()
    assert frames.missing(109 * MS) == ["ee_pose: nothing received"]
    assert frame_at(frames, 109 * MS) is None
    frames.ee_pose.put(105 * MS, pose())
    frame = frame_at(frames, 109 * MS)
    assert frame is not None
    np.testing.assert_array_equal(frame.ee_position_m, np.zeros(3))


def test_each_missing_stream_is_named_with_the_reason() -> None:
    frames = FrameAssembler(("left",), max_age_ns=100 * MS)
    assert frames.missing(0) == [
        "camera left: nothing received",
        "ee_pose: nothing received",
        "gripper: nothing received",
    ]
    assert assembler().missing(120 * MS) == []
    assert assembler().missing(121 * MS) == ["gripper: 101 ms old"]
    assert assembler().missing(195 * MS) == ["camera right: 105 ms old", "gripper: 175 ms old"]
    assert frame_at(assembler(), 121 * MS) is None


@pytest.mark.parametrize(
    ("stamp_ns", "why"),
    [
        (0, "its messages have no stamp (0): its publisher must stamp them"),
        (5 * 10**12, "95000 s old: its publisher has ended, or stamps by another clock than this node's"),
    ],
)
def test_a_stamp_that_is_no_ros_time_is_said(stamp_ns: int, why: str) -> None:
    frames = assembler()
    frames.images["left"].clear()
    frames.images["left"].put(stamp_ns, np.zeros((2, 2, 3), np.uint8))
    assert frames.missing(10**14)[0] == f"camera left: {why}"


def test_cleared_assembler_has_seen_nothing() -> None:
    frames = assembler()
    frames.clear()
    assert len(frames.missing(120 * MS)) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_measurement_that_is_not_finite_is_missing(value: float) -> None:
    frames = assembler()
    frames.ee_pose.put(115 * MS, pose(0.1, value, 0.3))
    assert frames.missing(120 * MS) == ["ee_pose: not a finite number"]
    assert frame_at(frames, 120 * MS) is None
    frames.gripper.put(116 * MS, value)
    assert frames.missing(120 * MS) == ["ee_pose: not a finite number", "gripper: not a finite number"]


def test_sample_from_far_in_the_future_never_becomes_new() -> None:
    """A camera whose clock is a second ahead: its picture must not be taken for a fresh one a second later."""
    frames = assembler()
    frames.images["left"].put(1120 * MS, picture(9))
    frames.refuse_future(120 * MS)
    frame = frame_at(frames, 120 * MS)
    assert frame is not None  # what came before is still there
    np.testing.assert_array_equal(frame.images[0], picture(1))
    frames.images["right"].put(1110 * MS, picture(2))
    frames.ee_pose.put(1110 * MS, pose())
    frames.gripper.put(1110 * MS, 0.5)
    assert frames.missing(1120 * MS) == ["camera left: stamped 1000 ms in the future"]
    frames.images["left"].put(1125 * MS, picture(3))  # the clock was set
    frames.refuse_future(1125 * MS)
    assert frames.missing(1125 * MS) == []
    assert frames.missing(1226 * MS)[0] == "camera left: 101 ms old"  # the old fault is no longer named


def test_sample_a_little_ahead_is_kept_for_its_time() -> None:
    frames = assembler()
    frames.images["left"].put(150 * MS, picture(9))
    frames.refuse_future(120 * MS)
    assert frames.images["left"].newest_ns == 150 * MS


def test_samples_of_a_time_that_was_taken_back_are_forgotten() -> None:
    frames = assembler()
    frames.refuse_future(120 * MS)
    frames.refuse_future(119 * MS)
    assert frames.missing(119 * MS) == [
        f"{name}: nothing received" for name in ("camera left", "camera right", "ee_pose", "gripper")
    ]
