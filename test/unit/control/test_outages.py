"""Outages in real time: no command that follows one is a leap, and none repeats a command that is void."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.planner import InlinePlanner, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.poses import make_pose
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
START = 1_000_000_000_000
HOME_M = np.array([0.0, 0.6, 0.2])
DOWN, ON_ITS_SIDE = (0.0, 1.0, 0.0, 0.0), (0.0, 0.7071067811865476, 0.0, 0.7071067811865476)
STRIDE_M = 0.002
SPEED, ACCELERATION = 0.25, 2.0
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
Array = NDArray[np.float64]


class Robot:
    """An arm that follows `lag` ticks late, under a policy that moves along x; its faults are attributes."""

    def __init__(self, make_frame: Callable[..., Frame], **gate: Any) -> None:
        limits = {"max_speed_m_s": SPEED, "max_acceleration_m_s2": ACCELERATION, "max_frozen_s": 0.0, **gate}
        runtime = RuntimeConfig.model_validate({"mode": "realtime", "gate": limits})
        self.controller = Controller(PolicyConfig(), runtime, InlinePlanner(self._plan))
        self._make_frame = make_frame
        self.measured_m, self.orientation, self.now_ns, self.ticks = HOME_M, DOWN, START, 0
        self.sees, self.senses, self.obeys, self.lag = True, True, True, 6
        self.told: list[Array] = [HOME_M] * 7
        self.published: list[tuple[int, Array]] = []  # tick, position
        self.verdicts: list[Verdict] = []

    def _plan(self, request: PlanRequest) -> Array:
        chunk = np.zeros((8, 4))
        chunk[:, 0] = STRIDE_M * np.arange(8)
        return chunk

    def run(self, ticks: int) -> Robot:
        for _ in range(ticks):
            self.now_ns, self.ticks = self.now_ns + DT, self.ticks + 1
            if self.senses:
                pose = make_pose(self.measured_m, self.orientation)
                self.controller.commander.measure(self.now_ns, pose)
            if self.sees and self.senses:
                images = (PICTURES[self.ticks % 8],)
                state = tuple(self.measured_m)
                self.controller.observe(
                    self._make_frame(self.now_ns, state, images=images, orientation=self.orientation)
                )
            decision = self.controller.tick(self.now_ns)
            if decision is not None:
                self.verdicts.append(decision.verdict)
                if not decision.is_silent:
                    self.published.append((self.ticks, decision.command.position_m))
            self.told.append(self.published[-1][1] if self.published else HOME_M)
            if self.obeys:
                self.measured_m = self.told[-1 - self.lag]
        return self

    def assert_smooth(self) -> None:
        """Each run of commands without a silence keeps the limits of speed and acceleration."""
        ticks = np.array([tick for tick, _ in self.published])
        for run in np.split(np.arange(len(ticks)), np.flatnonzero(np.diff(ticks) > 1) + 1):
            path = np.array([self.published[i][1] for i in run])
            for order, most in ((1, SPEED), (2, ACCELERATION)):
                found = np.linalg.norm(np.diff(path, n=order, axis=0), axis=1) / (DT / 1e9) ** order
                assert (found <= most * (1 + 1e-6)).all()

    def published_since(self, tick: int) -> list[Array]:
        return [position for at, position in self.published if at > tick]

    @property
    def begun(self) -> int:
        return self.controller.commander.begun

    @property
    def last_m(self) -> Array:
        assert self.controller.commander.last is not None
        return self.controller.commander.last.position_m


@pytest.fixture
def robot(make_frame: Callable[..., Frame]) -> Callable[..., Robot]:
    return lambda **gate: Robot(make_frame, **gate)


@pytest.mark.parametrize("outage_s", [0.3, 0.6, 2.0])
def test_an_arm_behind_its_command_is_not_told_to_leap_after_an_outage_of_a_camera(
    robot: Callable[..., Robot], outage_s: float
) -> None:
    pressing = robot().run(60)
    pressing.obeys = False
    while np.linalg.norm(pressing.last_m - pressing.measured_m) < 0.08:
        pressing.run(1)
    pressing.sees = False
    pressing.run(round(outage_s / 0.0125))
    pressing.sees, tick = True, pressing.ticks
    pressing.run(20)
    assert pressing.begun == (1 if outage_s < 0.5 else 2)
    assert len(pressing.published_since(tick)) == 20
    pressing.assert_smooth()


@pytest.mark.parametrize("step_s", [2.0, -0.05, -500.0])
def test_after_a_step_of_the_clock_nothing_is_published_until_the_arm_has_come_to_rest(
    robot: Callable[..., Robot], step_s: float
) -> None:
    moving = robot().run(80)
    moving.now_ns += round(step_s * 1e9)
    moving.sees, moving.senses = False, False
    moving.run(1)
    moving.sees = moving.senses = True
    tick = moving.ticks
    moving.run(60)
    first_tick, first_m = next((at, m) for at, m in moving.published if at > tick)
    assert 0.2 < (first_tick - tick) * 0.0125 < 0.35
    assert np.linalg.norm(first_m - moving.told[first_tick]) < 2 * STRIDE_M
    assert moving.verdicts[-1] is not Verdict.HOLD_STALE
    moving.assert_smooth()


def test_an_arm_pulled_away_stays_held_over_an_outage_until_it_is_near(robot: Callable[..., Robot]) -> None:
    pulled = robot().run(60)
    pulled.obeys, pulled.measured_m, tick = False, HOME_M - [0.3, 0.0, 0.0], pulled.ticks
    pulled.run(60)
    pulled.sees = False
    pulled.run(60)
    pulled.sees = True
    pulled.run(40)
    assert pulled.verdicts[-1] is Verdict.HOLD_FAR
    assert pulled.published_since(tick) == []
    pulled.measured_m = pulled.last_m
    assert not pulled.run(3).verdicts[-1].holds
    pulled.measured_m = HOME_M - [0.3, 0.0, 0.0]
    pulled.run(3)
    pulled.controller.reset()
    assert not pulled.run(3).verdicts[-1].holds


def test_a_tool_that_was_turned_stays_held_over_an_outage_until_it_is_turned_back(
    robot: Callable[..., Robot],
) -> None:
    twisted = robot().run(60)
    twisted.orientation = ON_ITS_SIDE
    assert twisted.run(30).verdicts[-1] is Verdict.HOLD_TURNED
    for fault in ("sees", "senses"):
        setattr(twisted, fault, False)
        twisted.run(60)
        setattr(twisted, fault, True)
        assert twisted.run(40).verdicts[-1] is Verdict.HOLD_TURNED
    twisted.orientation = DOWN
    assert not twisted.run(3).verdicts[-1].holds


@pytest.mark.parametrize("senses", [True, False])
def test_an_old_command_is_not_published_to_a_simulator_that_restarts_without_a_camera(
    robot: Callable[..., Robot], senses: bool
) -> None:
    moved = robot(max_distance_m=0.0).run(200)
    moved.now_ns, moved.sees, moved.senses, moved.obeys = 10**9, False, senses, False
    moved.measured_m, tick = HOME_M, moved.ticks
    moved.run(200)
    assert moved.published_since(tick) == []
    assert moved.controller.hold(moved.now_ns) is None
    moved.sees = moved.senses = True
    first_m, *_ = moved.run(3).published_since(tick)
    assert np.linalg.norm(first_m - HOME_M) < STRIDE_M


def test_after_another_commander_the_old_command_is_not_published_while_a_camera_is_out(
    robot: Callable[..., Robot],
) -> None:
    driven = robot().run(60)
    driven.obeys, driven.sees, tick = False, False, driven.ticks
    driven.controller.commander.rival = "jog publishes command/ee_pose too"
    for _ in range(60):
        driven.measured_m = driven.measured_m + np.array([0.001, 0.0, 0.0])
        driven.run(1)
    driven.controller.commander.rival = ""
    driven.run(60)
    assert driven.published_since(tick) == []
    driven.sees = True
    first_m, *_ = driven.run(3).published_since(tick)
    assert np.linalg.norm(first_m - driven.measured_m) < STRIDE_M


def test_holds_that_are_not_published_do_not_move_the_command(robot: Callable[..., Robot]) -> None:
    """A pose that is lost while the arm brakes: it stays where the last published command sent it."""
    braking = robot(max_acceleration_m_s2=0.1, max_pose_age_s=0.2).run(200)
    braking.senses = False
    braking.run(30)
    assert braking.controller.commander.is_silent(braking.now_ns)
    np.testing.assert_array_equal(braking.last_m, braking.published[-1][1])
    braking.senses, tick = True, braking.ticks
    braking.run(60)
    first_m = braking.published_since(tick)[0]
    assert np.linalg.norm(first_m - braking.told[tick]) < STRIDE_M
    braking.assert_smooth()


def test_an_old_pose_is_no_sign_that_the_arm_is_far(robot: Callable[..., Robot]) -> None:
    """The commands go on braking for longer than `max_distance_m` after the last pose."""
    braking = robot(max_acceleration_m_s2=0.05, max_distance_m=0.003, max_pose_age_s=1.0).run(300)
    braking.senses = False
    braking.run(40)
    assert not braking.controller.commander.is_silent(braking.now_ns)


@pytest.mark.parametrize("is_simulated", [False, True])
def test_only_a_simulated_robot_is_put_back_by_a_leap_of_time(
    make_frame: Callable[..., Frame], is_simulated: bool
) -> None:
    """A real arm that is found far from its commands after an outage was moved, and waits for a person."""
    robot = Robot(make_frame)
    robot.controller.commander.is_reset_by_time = is_simulated
    robot.run(200)
    assert abs(robot.measured_m[0] - HOME_M[0]) > 0.2
    robot.now_ns += 2_000_000_000
    robot.measured_m, robot.obeys = HOME_M, False
    before = len(robot.published)
    robot.run(60)
    after = [position_m for _, position_m in robot.published[before:]]
    if is_simulated:
        assert robot.verdicts[-1] is not Verdict.HOLD_FAR
        assert max(np.abs(np.array(after) - HOME_M).max(axis=1)) < 0.15
    else:
        assert robot.verdicts[-1] is Verdict.HOLD_FAR
