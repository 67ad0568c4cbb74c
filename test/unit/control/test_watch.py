"""Watchdogs in the control loop: what single commands do not show stops the arm, with the cause in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.planner import InlinePlanner, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.poses import make_pose
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
START = 1_000_000_000_000
HOME_M = np.array([0.0, 0.6, 0.2])
DOWN = (0.0, 1.0, 0.0, 0.0)
STRIDE_M = 0.002
LAG_TICKS = 20  # a quarter of a second
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
Array = NDArray[np.float64]


class Arm:
    """An obedient arm whose plans go on along `direction`; its faults are attributes."""

    def __init__(self, make_frame: Callable[..., Frame], mode: str = "realtime", **gate: Any) -> None:
        runtime = RuntimeConfig.model_validate({"mode": mode, "gate": gate})
        self.direction = np.array([0.0, 1.0, 0.0])
        self.controller = Controller(PolicyConfig(), runtime, InlinePlanner(self._plan))
        self._make_frame = make_frame
        self.measured_m = HOME_M
        self.tick_no = self.plans = 0
        self.obeys, self.sees, self.senses = True, True, True
        self.gripper = 0.0  # of the plans
        self.picture: Array | None = None  # the only one; None: they change
        self.skew_ns = 0
        self.lag = 0  # ticks by which it follows late
        self.published: list[Array] = []
        self.decisions: list[PolicyDecision] = []

    def _plan(self, request: PlanRequest) -> Array:
        self.plans += 1
        chunk = np.full((8, 4), self.gripper)
        chunk[:, :3] = STRIDE_M * np.arange(8)[:, None] * self.direction
        return chunk

    @property
    def now_ns(self) -> int:
        return START + self.tick_no * DT

    def run(self, ticks: int) -> PolicyDecision:
        for _ in range(ticks):
            picture = PICTURES[self.tick_no % 8] if self.picture is None else self.picture
            if self.senses:
                self.controller.commander.measure(self.now_ns, make_pose(self.measured_m, DOWN))
            if self.sees and self.senses:
                changes = {"images": (picture,), "skew_ns": self.skew_ns}
                self.controller.observe(self._make_frame(self.now_ns, tuple(self.measured_m), **changes))
            decision = self.controller.tick(self.now_ns)
            if decision is not None:
                self.decisions.append(decision)
                if not decision.is_silent:
                    self.published.append(decision.command.position_m)
                    if self.obeys:
                        self.measured_m = self.published[-1 - min(self.lag, len(self.published) - 1)]
            self.tick_no += 1
        return self.decisions[-1]

    @property
    def verdict(self) -> Verdict:
        return self.decisions[-1].verdict


@pytest.fixture
def arm(make_frame: Callable[..., Frame]) -> Callable[..., Arm]:
    return lambda **settings: Arm(make_frame, **settings)


def test_a_robot_that_restarts_at_home_is_not_told_to_leap(arm: Callable[..., Arm]) -> None:
    """Without a gap in the poses: nothing is published from the first pose at home on."""
    robot = arm(max_distance_m=0.1)
    assert robot.run(100).verdict is Verdict.PASS
    count, plans, robot.measured_m = len(robot.published), robot.plans, HOME_M
    held = robot.run(100)
    assert held.verdict is Verdict.HOLD_FAR
    assert "the arm is measured 0.2" in held.detail
    assert "deactivate and activate" in held.detail
    assert len(robot.published) == count
    assert robot.plans == plans  # none is computed for nothing
    robot.controller.reset()
    assert robot.run(3).verdict is Verdict.PASS
    assert np.linalg.norm(robot.published[count] - HOME_M) <= STRIDE_M * 1.01


def test_no_command_is_published_while_the_pose_is_unknown(arm: Callable[..., Arm]) -> None:
    """A robot that restarts must not hear a hold of where it was before."""
    robot = arm(max_obs_age_s=0.1, max_pose_age_s=0.3)
    robot.run(100)
    robot.senses, count = False, len(robot.published)
    robot.run(24)
    assert robot.verdict is Verdict.HOLD_STALE
    assert len(robot.published) == count + 24
    robot.run(40)
    assert len(robot.published) == count + 24
    robot.senses, robot.measured_m = True, HOME_M
    robot.run(3)
    steps_m = np.linalg.norm(robot.published[count + 24] - HOME_M)
    assert steps_m <= STRIDE_M * 1.01  # it begins where the arm is


def test_an_arm_that_is_stuck_or_was_pushed_a_little_goes_on_when_it_is_near_again(
    arm: Callable[..., Arm],
) -> None:
    robot = arm(max_distance_m=0.05)
    robot.run(10)
    robot.obeys = False
    robot.run(90)
    assert robot.verdict is Verdict.HOLD_FAR
    last_m = robot.controller.commander.last
    assert last_m is not None
    ahead_m = np.linalg.norm(last_m.position_m - robot.measured_m)
    assert 0.05 < ahead_m < 0.05 + (LAG_TICKS + 2) * STRIDE_M
    robot.measured_m = last_m.position_m - np.array([0.0, 0.045, 0.0])  # within the limit, but not by enough
    assert robot.run(1).verdict is Verdict.HOLD_FAR
    robot.measured_m, robot.obeys = last_m.position_m - np.array([0.0, 0.039, 0.0]), True
    robot.run(3)
    assert robot.verdict is Verdict.PASS


def test_an_arm_that_follows_the_path_late_is_not_far_from_its_commands(arm: Callable[..., Arm]) -> None:
    robot = arm(max_distance_m=2 * STRIDE_M)
    robot.lag = LAG_TICKS - 2
    robot.run(120)
    assert {decision.verdict for decision in robot.decisions} <= {Verdict.PASS, Verdict.HOLD_NO_PLAN}
    last = robot.controller.commander.last
    assert last is not None
    assert np.linalg.norm(last.position_m - robot.measured_m) > 4 * STRIDE_M


def test_a_frozen_camera_with_new_stamps_stops_the_arm(arm: Callable[..., Arm]) -> None:
    robot = arm(max_frozen_s=0.2)
    robot.run(20)
    robot.picture = PICTURES[0]
    held = robot.run(30)
    assert held.verdict is Verdict.HOLD_FROZEN
    assert held.detail.startswith("camera gripperPOV: the same for")
    moved = [d.command.stamp_ns for d in robot.decisions if not d.verdict.holds]
    assert moved[-1] - (START + 20 * DT) <= 0.2e9 + 2 * DT
    robot.picture = None
    assert robot.run(5).verdict is Verdict.PASS


def test_a_picture_may_stay_the_same_while_the_arm_does_not_move(arm: Callable[..., Arm]) -> None:
    robot = arm(max_frozen_s=0.2)
    robot.direction, robot.picture = np.zeros(3), PICTURES[0]
    robot.run(100)
    assert {decision.verdict for decision in robot.decisions} == {Verdict.PASS}


def test_a_frozen_pose_with_new_stamps_stops_the_arm(arm: Callable[..., Arm]) -> None:
    robot = arm(max_frozen_s=0.2, max_distance_m=0.0)
    robot.run(20)
    robot.obeys = False
    held = robot.run(30)
    assert held.verdict is Verdict.HOLD_FROZEN
    assert held.detail.startswith("ee_pose: the same for")


def test_pictures_and_pose_too_far_apart_in_time_hold(arm: Callable[..., Arm]) -> None:
    robot = arm(max_skew_s=0.05)
    robot.skew_ns = 49_000_000
    assert robot.run(10).verdict is Verdict.PASS
    robot.skew_ns = 51_000_000
    held = robot.run(1)
    assert held.verdict is Verdict.HOLD_SKEWED
    assert "51 ms apart" in held.detail


def test_a_chunk_of_an_old_frame_holds(make_frame: Callable[..., Frame]) -> None:
    """Slowed chunks last longer than their actions' own time."""
    robot = Arm(make_frame, max_chunk_age_s=0.05, max_speed_m_s=0.01)
    robot.run(8)
    assert {d.verdict for d in robot.decisions[5:]} == {Verdict.HOLD_OLD_PLAN}
    assert "gate.max_chunk_age_s 0.05" in robot.decisions[-1].detail


def test_leaning_on_the_wall_becomes_a_hold_and_ends_when_the_plan_turns(arm: Callable[..., Arm]) -> None:
    robot = arm(workspace_high_m=(0.5, 0.65, 0.6), max_wall_s=0.5)
    robot.run(24)
    assert robot.run(1).verdict is Verdict.PASS
    robot.run(30)
    assert robot.verdict is Verdict.LIMITED_WORKSPACE
    held = robot.run(40)
    assert held.verdict is Verdict.HOLD_WALL
    assert "max_wall_s 0.5" in held.detail
    assert held.command.position_m[1] == 0.65
    robot.direction = -robot.direction
    robot.run(12)
    assert robot.verdict is Verdict.PASS


def test_time_without_frames_is_no_time_of_leaning(arm: Callable[..., Arm]) -> None:
    robot = arm(workspace_high_m=(0.5, 0.65, 0.6), max_wall_s=0.5)
    robot.run(35)
    assert robot.verdict is Verdict.LIMITED_WORKSPACE
    robot.sees = False
    assert robot.run(100).verdict is Verdict.HOLD_STALE
    robot.sees, count = True, len(robot.decisions)
    robot.run(20)
    verdicts = {decision.verdict for decision in robot.decisions[count:]}
    assert Verdict.LIMITED_WORKSPACE in verdicts
    assert Verdict.HOLD_WALL not in verdicts


def test_after_a_stale_observation_motion_waits_until_all_is_well_for_a_time(
    arm: Callable[..., Arm],
) -> None:
    robot = arm(recover_s=0.1, max_obs_age_s=0.05)
    robot.run(20)
    robot.sees = False
    assert robot.run(10).verdict is Verdict.HOLD_STALE
    robot.sees = True
    count = len(robot.decisions)
    robot.run(12)
    found = [decision.verdict for decision in robot.decisions[count:]]
    first = next(i for i, verdict in enumerate(found) if not verdict.holds)
    assert found[first - 1] is Verdict.HOLD_RECOVERING
    assert 0.1 / 0.0125 <= first + 1 <= 0.1 / 0.0125 + 2


def test_a_new_episode_after_a_long_outage_waits_too(arm: Callable[..., Arm]) -> None:
    """A robot that has just restarted may not hear the first commands, and would leap to a later one."""
    robot = arm(recover_s=0.1, max_obs_age_s=0.05)
    robot.run(20)
    robot.sees = False
    robot.run(80)  # longer than episode_gap_s
    begun = robot.controller.commander.begun
    robot.sees = True
    count = len(robot.decisions)
    robot.run(20)
    assert robot.controller.commander.begun == begun + 1
    found = [decision.verdict for decision in robot.decisions[count:]]
    first = next(i for i, verdict in enumerate(found) if not verdict.holds)
    assert found[first - 1] is Verdict.HOLD_RECOVERING
    assert 0.1 / 0.0125 <= first + 1 <= 0.1 / 0.0125 + 3


def test_an_emergency_stop_lasts_until_the_next_activation(arm: Callable[..., Arm]) -> None:
    robot = arm(max_acceleration_m_s2=2.0)
    robot.run(40)
    robot.controller.commander.stopped = "emergency stop"
    held = robot.run(60)
    assert (held.verdict, held.detail) == (Verdict.HOLD_STOPPED, "emergency stop")
    speeds = np.linalg.norm(np.diff(robot.published, axis=0), axis=1) / 0.0125
    assert speeds[-30:].max() == 0.0
    assert np.abs(np.diff(speeds)).max() <= 2.0 * 0.0125 * (1 + 1e-6)
    robot.controller.reset()
    assert robot.run(5).verdict in (Verdict.PASS, Verdict.LIMITED_ACCELERATION)


def test_beside_another_commander_nothing_is_published_and_motion_begins_where_that_left_the_arm(
    arm: Callable[..., Arm],
) -> None:
    robot = arm()
    robot.run(20)
    count = len(robot.published)
    robot.controller.commander.rival = "jog publishes command/ee_pose too"
    for _ in range(30):
        robot.measured_m = robot.measured_m + np.array([0.003, 0.0, 0.0])  # driven by it
        assert robot.run(1).verdict is Verdict.HOLD_OTHER_COMMANDER
    assert len(robot.published) == count
    left_m, robot.controller.commander.rival = robot.measured_m, ""
    robot.run(19)  # the arm may still follow the other's last command
    assert len(robot.published) == count
    robot.run(4)
    assert np.linalg.norm(robot.published[count] - left_m) <= 1.01 * STRIDE_M


def test_limits_that_are_tightened_under_way_hold_from_the_next_command_on(arm: Callable[..., Arm]) -> None:
    robot = arm()
    robot.run(20)
    config = robot.controller.commander.config
    robot.controller.commander.limit(config.model_copy(update={"max_speed_m_s": 0.02}))
    robot.run(20)
    steps_m = np.linalg.norm(np.diff(robot.published[20:], axis=0), axis=1)
    assert steps_m.max() <= 0.02 * 0.0125 * (1 + 1e-9)
    assert robot.verdict is Verdict.LIMITED_SPEED


def test_a_gripper_range_that_is_tightened_holds_in_holds_too(arm: Callable[..., Arm]) -> None:
    robot = arm()
    robot.gripper = 0.9
    assert robot.run(20).command.gripper == 0.9
    config = robot.controller.commander.config
    robot.controller.commander.limit(config.model_copy(update={"gripper_high": 0.3}))
    robot.controller.commander.stopped = "emergency stop"
    assert robot.run(1).command.gripper == 0.3


def test_in_lockstep_a_simulated_arm_may_be_slower_than_its_commands_and_every_tick_has_one(
    arm: Callable[..., Arm],
) -> None:
    """A policy that is not trained yet asks for more than the arm can do; an evaluation counts what becomes of it."""
    robot = arm(mode="lockstep", max_distance_m=0.01, max_frozen_s=0.1)
    robot.obeys, robot.picture = False, PICTURES[0]
    robot.run(60)
    assert {decision.verdict for decision in robot.decisions} == {Verdict.PASS}
    robot.controller.commander.rival = "another node"
    assert robot.run(1).verdict is Verdict.HOLD_OTHER_COMMANDER
    assert len(robot.published) == 61
