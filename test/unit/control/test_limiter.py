"""Limits of the commanded motion: whatever is asked for, no command exceeds one, and a stop is always possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp_ros.control.limiter import Limiter, Limits, Point

FREE = math.inf
LOW_M, HIGH_M = (-0.3, -0.2, 0.0), (0.3, 0.2, 0.1)
SPEED = 0.5
H = 0.0125
ANY = [(FREE, FREE), (2.0, FREE), (2.0, 40.0), (4.0, 400.0), (2.0, 5.0), (40.0, 40.0)]
ANYWHERE = st.tuples(*[st.floats(-0.6, 0.6)] * 3)


def limiter(acceleration: float = FREE, jerk: float = FREE, h: float = H) -> Limiter:
    return Limiter(Limits(LOW_M, HIGH_M, SPEED, acceleration, jerk), h)


def assert_within_limits(positions: list[Point], acceleration: float, jerk: float, h: float = H) -> None:
    """From rest at the first position."""
    path = np.array([positions[0]] * 3 + positions)
    assert (path >= np.array(LOW_M)).all()
    assert (path <= np.array(HIGH_M)).all()
    for order, most in ((1, SPEED), (2, acceleration), (3, jerk)):
        found = np.linalg.norm(np.diff(path, n=order, axis=0), axis=1).max() / h**order
        assert found <= most * (1 + 1e-6)


@pytest.mark.parametrize(("acceleration", "jerk"), ANY)
@given(asked=st.lists(st.tuples(ANYWHERE, st.integers(1, 20), st.booleans()), max_size=12))
@settings(max_examples=25)
def test_whatever_is_asked_for_no_command_exceeds_a_limit(
    acceleration: float, jerk: float, asked: list[tuple[Point, int, bool]]
) -> None:
    arm = limiter(acceleration, jerk)
    arm.begin((0.0, 0.0, 0.05))
    positions = [arm.position]
    for to, ticks, brakes in asked:
        positions += [arm.brake(H) if brakes else arm.go(to, H) for _ in range(ticks)]
    assert_within_limits(positions, acceleration, jerk)


@pytest.mark.parametrize("acceleration", [FREE, 2.0, 40.0])
def test_it_arrives_and_stays(acceleration: float) -> None:
    arm, goal = limiter(acceleration), (0.25, -0.15, 0.09)
    arm.begin((-0.2, 0.1, 0.01))
    positions = [arm.position] + [arm.go(goal, H) for _ in range(1500)]
    assert math.dist(positions[-1], goal) < 1e-4
    assert_within_limits(positions, acceleration, FREE)


@pytest.mark.parametrize(("acceleration", "jerk"), ANY)
def test_stop_from_full_speed_is_as_short_as_the_limits_allow_and_then_still(
    acceleration: float, jerk: float
) -> None:
    arm = limiter(acceleration, jerk)
    arm.begin((-0.25, 0.0, 0.05))
    positions = [arm.position]
    while arm.speed_m_s < 0.9 * SPEED and len(positions) < 500 and arm.position[0] < 0.1:
        positions.append(arm.go((0.3, 0.0, 0.05), H))
    speed, at = arm.speed_m_s, arm.position[0]
    stop = [arm.brake(H) for _ in range(300)]
    assert not arm.is_moving
    assert stop[-1] == stop[-2]
    assert_within_limits([*positions, *stop], acceleration, jerk)
    least_m = 0.0 if acceleration == FREE else speed**2 / (2 * acceleration) - speed * H
    slack_m = (
        0.0 if jerk == FREE else speed * 3 * acceleration / jerk + 0.2
    )  # releasing and applying the brake
    assert least_m - 1e-9 <= stop[-1][0] - at <= least_m + speed * H + slack_m


@pytest.mark.parametrize(("acceleration", "jerk"), [(FREE, FREE), (2.0, FREE), (2.0, 40.0)])
def test_limits_mean_the_same_at_10_and_at_80_hz(acceleration: float, jerk: float) -> None:
    taken_s = {}
    for h in (0.1, 0.0125, 0.002):
        arm = limiter(acceleration, jerk, h)
        arm.begin((-0.3, 0.0, 0.05))
        positions = [arm.position]
        while arm.position[0] < 0.0:
            positions.append(arm.go((0.3, 0.0, 0.05), h))
        taken_s[h] = (len(positions) - 1) * h
        assert_within_limits(positions, acceleration, jerk, h)
    assert max(taken_s.values()) - min(taken_s.values()) <= 0.2  # two ticks of the slowest rate


def test_arm_that_begins_outside_comes_in_and_never_leaves() -> None:
    rng = np.random.default_rng(0)
    arm = limiter(2.0, 40.0)
    arm.begin((0.32, 0.0, 0.05))
    widest = 0.32
    for _ in range(2000):
        x, _, _ = arm.go(tuple(rng.uniform(-0.5, 0.5, 3)), H)
        assert x <= widest
        widest = max(x, HIGH_M[0])
    assert widest == HIGH_M[0]


def test_a_lower_speed_is_reached_within_the_limit_of_acceleration() -> None:
    arm = limiter(2.0)
    arm.begin((-0.3, 0.0, 0.05))
    for _ in range(25):
        arm.go((0.3, 0.0, 0.05), H)
    speeds = []
    for _ in range(20):
        arm.go((0.3, 0.0, 0.05), H, cap_m_s=0.1)
        speeds.append(arm.speed_m_s)
    assert speeds[0] > 0.4
    assert max(-np.diff(speeds)) <= 2.0 * H * (1 + 1e-9)
    assert speeds[-1] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("dt_s", [0.0, -1.0, math.nan])
def test_without_time_nothing_moves(dt_s: float) -> None:
    arm = limiter(2.0, 40.0)
    arm.begin((0.0, 0.0, 0.05))
    for _ in range(10):
        arm.go((0.3, 0.0, 0.05), H)
    at = arm.position
    assert arm.go((0.3, 0.0, 0.05), dt_s) == at
    assert arm.brake(dt_s) == at


def test_a_stop_in_progress_keeps_limits_that_are_tightened() -> None:
    arm = limiter(4.0)
    arm.begin((-0.3, 0.0, 0.05))
    for _ in range(25):
        arm.go((0.3, 0.0, 0.05), H)
    arm.brake(H)
    arm.limits = Limits(LOW_M, HIGH_M, SPEED, 1.0)
    speeds = [arm.speed_m_s]
    for _ in range(5):
        arm.brake(H)
        speeds.append(arm.speed_m_s)
    assert min(np.diff(speeds)) == pytest.approx(-1.0 * H, rel=1e-4)


def test_a_tighter_speed_during_a_stop_does_not_release_the_brake() -> None:
    """The stop in progress goes on: another one, planned in the middle of braking, first gave up the deceleration."""
    stops: list[list[Point]] = []
    for tightens in (False, True):
        arm = limiter(4.0, 400.0)
        arm.begin((-0.2, 0.0, 0.05))
        for _ in range(20):
            arm.go((0.3, 0.0, 0.05), H)
        path = [arm.brake(H) for _ in range(4)]
        if tightens:
            arm.limits = Limits(LOW_M, HIGH_M, 0.9 * SPEED, 4.0, 400.0)
        stops.append([*path, *(arm.brake(H) for _ in range(40))])
    assert stops[0] == stops[1]


@given(
    intervals=st.lists(st.floats(0.02, 2.0), min_size=2, max_size=15),
    tighter=st.sampled_from(
        [Limits(LOW_M, HIGH_M, SPEED, 2.0, 200.0), Limits(LOW_M, HIGH_M, SPEED, 4.0, 100.0)]
    ),
)
@settings(max_examples=100)
def test_tighter_limits_in_a_stop_of_uneven_intervals_do_not_turn_the_arm_round(
    intervals: list[float], tighter: Limits
) -> None:
    """Between two commands that are close in time a stop seems to brake at many times the limit."""
    h = 0.002
    arm = limiter(4.0, 200.0, h)
    arm.begin((-0.2, 0.0, 0.05))
    while arm.speed_m_s < 0.4:
        arm.go((0.3, 0.0, 0.05), h)
    fastest = arm.speed_m_s
    for interval in intervals:
        arm.brake(interval * h)
    arm.limits = tighter
    while arm.is_moving:
        before = arm.position
        arm.brake(h)
        step = arm.position[0] - before[0]
        assert -1e-12 <= step <= (fastest + 0.09) * h  # a^2 / 2j before the acceleration is released
