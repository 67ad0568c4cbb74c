"""A policy whose process hung waits until it must have heard of a watchdog."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
from dp_ros.ros.nodes.policy_commands import Hang


def reasons(ticks_s: list[float]) -> list[bool]:
    """Whether the policy waits, at ticks at those times."""
    now = iter(ticks_s)
    hang = Hang(lambda: next(now))
    return [bool(hang.reason()) for _ in ticks_s]


def test_a_process_that_hung_waits_and_goes_on() -> None:
    assert reasons([0.05, 0.1, 0.5, 0.55, 0.75, 0.81, 0.86]) == [False, False, True, True, True, False, False]


def test_beside_a_watchdog_it_waits_until_that_has_said_what_it_does() -> None:
    times_s = [0.25, *(0.75 + 0.25 * i for i in range(21)), 6.25, 6.5]
    now = iter(times_s)
    hang = Hang(lambda: next(now))
    waits = [hang.reason(is_watched=True) != "" for _ in times_s[:-1]]
    assert waits == [False, *20 * [True], False, True]  # for 5 s; then it hung again
    hang.end()
    assert not hang.reason(is_watched=True)


def test_what_was_decided_before_a_hang_is_not_sent() -> None:
    now = iter([1.0, 1.01, 1.05, 1.6])
    hang = Hang(lambda: next(now))
    for is_sent in (True, False):
        assert not hang.reason()
        assert hang.is_now() != is_sent


def test_a_slow_policy_is_no_hang() -> None:
    now = iter([1.0, 1.5, 2.0, 3.1])
    hang = Hang(lambda: next(now))
    hang.begin(period_s=0.5)
    assert [bool(hang.reason()) for _ in range(4)] == [False, False, False, True]


def test_late_ticks_are_no_hang() -> None:
    assert reasons([0.25, 0.5, 0.79]) == [False, False, False]


def test_the_time_before_an_activation_is_no_hang() -> None:
    now = iter([0.05, 100.0, 100.05])
    hang = Hang(lambda: next(now))
    assert not hang.reason()
    hang.begin()
    assert not hang.reason()
    assert not hang.reason()
