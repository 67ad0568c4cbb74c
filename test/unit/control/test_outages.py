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
UP = np.array([0.0, 0.0, 1.0])
DOWN, ON_ITS_SIDE = (0.0, 1.0, 0.0, 0.0), (0.0, 0.7071067811865476, 0.0, 0.7071067811865476)
STRIDE_M = 0.002
SPEED, ACCELERATION = 0.25, 2.0
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
Array = NDArray[np.float64]


class Robot:
    """An arm that follows `lag` ticks late, under a policy that moves along x; its faults are attributes."""

    def __init__(self, make_frame: Callable[..., Frame], command_rate_hz: float = 0.0, **gate: Any) -> None:
        limits = {"max_speed_m_s": SPEED, "max_acceleration_m_s2": ACCELERATION, "max_frozen_s": 0.0, **gate}
        settings = {"mode": "realtime", "command_rate_hz": command_rate_hz, "gate": limits}
        runtime = RuntimeConfig.model_validate(settings)
        self.controller = Controller(PolicyConfig(), runtime, InlinePlanner(self._plan))
        self._make_frame = make_frame
        self.measured_m, self.orientation, self.now_ns, self.ticks = HOME_M, DOWN, START, 0
        self.sees, self.senses, self.obeys, self.lag = True, True, True, 6
        self.noise_m = 0.0  # of the measured position
        self.told: list[Array] = [HOME_M] * 7
        self.published: list[tuple[int, Array]] = []  # tick, position
        self.between: list[Array] = []  # positions published between ticks
        self.verdicts: list[Verdict] = []

    def _plan(self, request: PlanRequest) -> Array:
        chunk = np.zeros((8, 4))
        chunk[:, 0] = STRIDE_M * np.arange(8)
        return chunk

    def run(self, ticks: int) -> Robot:
        for _ in range(ticks):
            self.now_ns, self.ticks = self.now_ns + DT, self.ticks + 1
            if self.senses:
                noise_m = self.noise_m * np.sin(self.ticks + np.arange(3.0))
                pose = make_pose(self.measured_m + noise_m, self.orientation)
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
            time_ns = self.now_ns
            while self.controller.is_between(time_ns := time_ns + self.controller.period_ns):
                command = self.controller.between(time_ns)
                if command is not None:
                    self.between.append(command.position_m)
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
    assert not pulled.run(25).verdicts[-1].holds


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


@pytest.mark.parametrize("command_rate_hz", [0.0, 320.0])
def test_a_tool_that_is_turned_while_a_camera_is_out_gets_no_command(
    robot: Callable[..., Robot], command_rate_hz: float
) -> None:
    """The pose alone tells it, and tells when the tool is back."""
    twisted = robot(command_rate_hz=command_rate_hz).run(60)
    twisted.sees = False
    twisted.run(40)
    twisted.orientation, tick, between = ON_ITS_SIDE, twisted.ticks, len(twisted.between)
    twisted.run(40)
    twisted.controller.commander.stopped = "emergency stop"
    twisted.run(10)
    assert twisted.published_since(tick) == twisted.between[between:] == []
    assert twisted.controller.hold(twisted.now_ns) is None
    twisted.orientation, tick = DOWN, twisted.ticks
    assert len(twisted.run(10).published_since(tick)) == 10


def test_a_tool_about_the_limit_is_turned_until_it_is_clearly_back(robot: Callable[..., Robot]) -> None:
    trembling = robot().run(60)
    tick, changes = trembling.ticks, 0
    for i in range(80):
        half_rad = (0.5 + 0.003 * (-1) ** i) / 2
        trembling.orientation = (0.0, float(np.cos(half_rad)), float(np.sin(half_rad)), 0.0)
        before = trembling.verdicts[-1]
        changes += trembling.run(1).verdicts[-1] is not before
    assert changes == 1
    assert len(trembling.published_since(tick)) == 0


@pytest.mark.parametrize("turned_ticks", [10, 40, 80])
def test_the_way_back_to_a_pushed_arm_goes_on_slowly_after_its_tool_was_turned(
    robot: Callable[..., Robot], turned_ticks: int
) -> None:
    pushed = pushed_robot(robot)
    pushed.run(5)
    pushed.orientation, tick = ON_ITS_SIDE, pushed.ticks
    assert pushed.run(turned_ticks).published_since(tick) == []
    pushed.orientation = DOWN
    back = np.array(pushed.run(200).published_since(tick))
    speeds = np.linalg.norm(np.diff(back, axis=0), axis=1) / (DT / 1e9)
    assert speeds.max() <= 0.1 * (1 + 1e-6)
    np.testing.assert_allclose(back[-1], pushed.measured_m, atol=1e-3)


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


# ---- an arm that is far from its commands --------------------------------------------------------------


@pytest.mark.parametrize("command_rate_hz", [0.0, 320.0])
def test_the_command_goes_back_slowly_to_an_arm_that_is_stuck_and_rests_there(
    robot: Callable[..., Robot], command_rate_hz: float
) -> None:
    stuck = robot(command_rate_hz=command_rate_hz, max_distance_m=0.05).run(60)
    stuck.noise_m, stuck.obeys = 1e-5, False
    while stuck.verdicts[-1] is not Verdict.HOLD_FAR:
        stuck.run(1)
    tick = stuck.ticks
    assert np.linalg.norm(stuck.last_m - stuck.measured_m) > 0.05
    stuck.run(120)
    back = np.array(stuck.published_since(tick))
    assert len(back) == 120  # no silence
    np.testing.assert_allclose(back[-1], stuck.measured_m, atol=1e-3)
    np.testing.assert_array_equal(back[-1], back[-10])
    speeds = np.linalg.norm(np.diff(back, axis=0), axis=1) / (DT / 1e9)
    assert speeds[20:].max() <= 0.1 * (1 + 1e-6)
    stuck.assert_smooth()
    assert stuck.run(200).verdicts[-1] is Verdict.HOLD_FAR  # until a person says so
    assert bool(stuck.between) == bool(command_rate_hz)
    stuck.controller.reset()
    stuck.obeys = True
    assert not stuck.run(25).verdicts[-1].holds


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_arm_that_is_brought_back_goes_on_where_it_is(robot: Callable[..., Robot], share: float) -> None:
    """share: of the way from where it was found to where it was told to be."""
    pushed = pushed_robot(robot)
    told_m, found_m = pushed.last_m, pushed.measured_m
    pushed.run(80)
    tick, rest_m, brought_m = pushed.ticks, pushed.last_m, found_m + share * (told_m - found_m)
    for part in np.linspace(0.0, 1.0, 25):
        pushed.measured_m = found_m + part * (brought_m - found_m)
        pushed.run(1)
    said = pushed.run(25).published_since(tick)
    moved = [position_m for position_m in said if np.linalg.norm(position_m - rest_m) > 1e-6]
    assert np.linalg.norm(moved[0] - brought_m) < 0.01
    assert len(said) < 50 - 15  # nothing was published before
    assert not pushed.verdicts[-1].holds


def test_a_wrong_pose_where_the_arm_was_told_to_be_does_not_end_the_way_back(
    robot: Callable[..., Robot],
) -> None:
    pushed = pushed_robot(robot)
    told_m, found_m = pushed.last_m, pushed.measured_m
    pushed.run(20)
    tick, pushed.noise_m, pushed.measured_m = pushed.ticks, 0.0, told_m
    pushed.run(40)
    said = np.array([found_m, *pushed.published_since(tick)])
    assert np.linalg.norm(said - found_m, axis=1).max() < np.linalg.norm(told_m - found_m) + 1e-6
    assert pushed.verdicts[-1].holds


def test_a_robot_that_restarts_elsewhere_begins_there_although_its_pose_comes_first(
    robot: Callable[..., Robot],
) -> None:
    """No picture has come yet: the void command of before must not count as one that the arm does not obey."""
    restarted = robot(max_distance_m=0.05).run(60)
    restarted.senses = restarted.obeys = False
    restarted.run(80)
    restarted.senses, restarted.sees, restarted.measured_m = True, False, restarted.measured_m + 0.2 * UP
    tick = restarted.run(5).ticks
    restarted.sees = True
    first_m, *_ = restarted.run(10).published_since(tick)
    assert np.linalg.norm(first_m - restarted.measured_m) < 0.01


def pushed_robot(robot: Callable[..., Robot]) -> Robot:
    """A robot that has just been pushed too far from its commands, with a pose that is sure. It may leave the path of a
    chunk, but not that of its way back."""
    pushed = robot(max_distance_m=0.05, path_tolerance_m=0.03).run(60)
    pushed.noise_m, pushed.obeys = 1e-5, False
    while pushed.verdicts[-1] is not Verdict.HOLD_FAR:
        pushed.measured_m = pushed.measured_m - [0.0, 0.003, 0.0]
        pushed.run(1)
    return pushed


def stuck_robot(robot: Callable[..., Robot], noise_m: float = 1e-5) -> Robot:
    """A robot that has just been found far from its commands."""
    stuck = robot(max_distance_m=0.05, path_tolerance_m=0.03).run(60)
    stuck.noise_m, stuck.obeys = noise_m, False
    while stuck.verdicts[-1] is not Verdict.HOLD_FAR:
        stuck.run(1)
    return stuck


def test_nothing_is_commanded_by_a_pose_that_does_not_change(robot: Callable[..., Robot]) -> None:
    frozen = stuck_robot(robot, noise_m=0.0)
    tick = frozen.ticks - 1
    assert frozen.run(60).published_since(tick) == []


@pytest.mark.parametrize("leap_m", [0.2, 0.3])
def test_a_pose_that_leaps_ends_the_way_back_in_silence(robot: Callable[..., Robot], leap_m: float) -> None:
    """The robot restarts elsewhere, say: a command near the old place would be a leap for it."""
    restarted = stuck_robot(robot).run(5)
    restarted.measured_m, tick = restarted.measured_m + leap_m * UP, restarted.ticks
    assert restarted.run(60).published_since(tick) == []
    restarted.controller.reset()
    first_m, *_ = restarted.run(30).published_since(tick)
    assert np.linalg.norm(first_m - restarted.measured_m) < 0.01


def test_an_emergency_stop_ends_the_way_back_within_the_limits(robot: Callable[..., Robot]) -> None:
    stopped = stuck_robot(robot).run(20)
    stopped.controller.commander.stopped, tick = "emergency stop", stopped.ticks
    stopped.run(40)
    assert stopped.verdicts[-1] is Verdict.HOLD_STOPPED
    after = np.array(stopped.published_since(tick))
    np.testing.assert_array_equal(after[10:], np.tile(after[10], (len(after) - 10, 1)))
    stopped.assert_smooth()


# ---- intervals -----------------------------------------------------------------------------------------


def test_an_episode_after_a_reset_begins_when_the_last_command_has_come_to_rest(
    robot: Callable[..., Robot],
) -> None:
    """A node that is deactivated and activated again at once: the arm is still behind its last command."""
    moving = robot(max_acceleration_m_s2=0.0).run(60)
    assert np.linalg.norm(moving.measured_m - moving.last_m) > 4 * STRIDE_M
    moving.controller.reset()
    rests_m, tick = moving.told[-1], moving.ticks
    first_m, *_ = moving.run(40).published_since(tick)
    assert np.linalg.norm(first_m - rests_m) < 2 * STRIDE_M


def test_a_tick_that_comes_early_moves_the_arm_by_less(robot: Callable[..., Robot]) -> None:
    """After a late one, for example: the limit of speed counts the real time between two commands."""
    jittering = robot(max_acceleration_m_s2=0.0, max_speed_m_s=0.1).run(60)
    for i in range(60):
        jittering.now_ns += round((0.9 if i % 2 else -0.9) * DT)
        before_m, before_ns = jittering.last_m, jittering.now_ns
        jittering.run(1)
        passed_s = 0.0125 * (1.9 if i % 2 else 0.1)
        assert jittering.now_ns - before_ns == DT
        assert np.linalg.norm(jittering.last_m - before_m) <= 0.1 * passed_s * (1 + 1e-6)
