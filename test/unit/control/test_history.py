"""The last T_o frames by their stamps: complete, or none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.control.history import FrameHistory
from dp_ros.poses import make_pose
from dp_ros.schema import Horizons
from dp_ros.streams import Frame

DT = 12_500_000
GAP = 500_000_000
START = 1_000_000_000_000


def history(T_o: int = 3) -> FrameHistory:
    return FrameHistory(Horizons(T_o=T_o, T_p=16, T_a=4), DT, GAP)


def stamps(history: FrameHistory) -> list[int] | None:
    """The window's stamps in control periods after START."""
    window = history.window()
    return None if window is None else [round((frame.stamp_ns - START) / DT, 3) for frame in window]


@pytest.fixture
def push(make_frame: Callable[..., Frame]) -> Callable[..., list[bool]]:
    def push(history: FrameHistory, *ticks: float) -> list[bool]:
        return [history.push(make_frame(START + round(tick * DT))) for tick in ticks]

    return push


def test_nothing_seen_gives_no_window() -> None:
    assert history().window() is None
    assert history().newest is None


def test_an_episode_begins_with_its_first_frame_repeated(push: Callable[..., list[bool]]) -> None:
    h = history()
    assert push(h, 0) == [True]
    assert stamps(h) == [0, 0, 0]
    assert push(h, 1) == [False]
    assert stamps(h) == [0, 0, 1]
    push(h, 2, 3)
    assert stamps(h) == [1, 2, 3]


def test_frames_are_spaced_by_stamp_whatever_the_rate_of_the_camera(push: Callable[..., list[bool]]) -> None:
    """A camera of twice the control rate: every second frame is seen, not the last three."""
    h = history()
    push(h, *[i / 2 for i in range(13)])
    assert stamps(h) == [4, 5, 6]


@given(st.lists(st.floats(-0.24, 0.24), min_size=5, max_size=5))
def test_jitter_below_half_a_period_is_no_hole(jitter: list[float]) -> None:
    """Two stamps that are each off by less than a quarter are less than half a period from their places."""
    h = history()
    ticks = [i + j for i, j in enumerate(jitter)]
    for tick in ticks:
        h.push(frame_at(tick))
    assert stamps(h) == [round(tick, 3) for tick in ticks[-3:]]


def frame_at(tick: float) -> Frame:
    stamp_ns = START + round(tick * DT)
    return Frame(
        stamp_ns,
        (np.zeros((1, 1, 3), np.uint8),),
        make_pose([0, 0, 0], [0, 0, 0, 1]),
        1.0,
        sampled_ns=stamp_ns,
    )


def test_a_hole_gives_no_window_until_it_has_passed(push: Callable[..., list[bool]]) -> None:
    h = history()
    push(h, 0, 1, 2, 4)
    assert stamps(h) is None
    push(h, 5)
    assert stamps(h) is None
    push(h, 6)
    assert stamps(h) == [4, 5, 6]


@pytest.mark.parametrize(("late", "whole"), [(0.49, True), (0.51, False)])
def test_a_frame_counts_within_half_a_period_of_its_place(
    push: Callable[..., list[bool]], late: float, whole: bool
) -> None:
    h = history(T_o=2)
    push(h, 0, 1, 2 + late)
    assert (stamps(h) is not None) is whole


def test_a_long_gap_begins_a_new_episode(push: Callable[..., list[bool]]) -> None:
    h = history()
    push(h, 0, 1, 2)
    gap = GAP / DT
    assert push(h, 2 + gap) == [False]
    assert push(h, 2 + gap + gap + 0.01) == [True]
    assert stamps(h) == pytest.approx([2 + 2 * gap + 0.01] * 3)


def test_time_that_jumps_back_begins_a_new_episode(push: Callable[..., list[bool]]) -> None:
    h = history()
    push(h, 100, 101, 102)
    assert push(h, 0) == [True]
    assert stamps(h) == [0, 0, 0]


def test_late_and_repeated_frames_are_ignored(push: Callable[..., list[bool]]) -> None:
    h = history()
    assert push(h, 0, 1, 2, 1.5, 2, 0) == [True, False, False, False, False, False]
    assert stamps(h) == [0, 1, 2]
    assert h.newest is not None
    assert h.newest.stamp_ns == START + 2 * DT


def test_clear_forgets_the_episode(push: Callable[..., list[bool]]) -> None:
    h = history()
    push(h, 0, 1, 2)
    h.clear()
    assert h.window() is None
    assert push(h, 3) == [True]
    assert stamps(h) == [3, 3, 3]


def test_one_observed_frame_is_always_whole(push: Callable[..., list[bool]]) -> None:
    h = history(T_o=1)
    push(h, 0, 7)
    assert stamps(h) == [7]
