"""The stand-in's arm: it goes straight and at its own speed, stays without a command, and drives back to a start."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from dp_ros.poses import position_of
from dp_ros.sim.stand_in_arm import SPEED_M_S, StandInArm

S = round(StandInArm.rate_hz)


@pytest.fixture
def arm() -> Iterator[StandInArm]:
    arm = StandInArm(64, 48)
    yield arm
    arm.close()


def measured_m(arm: StandInArm) -> np.ndarray:
    return np.array(position_of(arm.measure()[0]))


def test_it_goes_in_a_straight_line_at_its_own_speed_and_stays_where_commands_end(arm: StandInArm) -> None:
    begin_m = arm.target_m
    goal_m = begin_m + np.array([0.05, 0.02, 0.05])
    targets = [begin_m]
    for _ in range(S):
        arm.tick(goal_m, None)
        targets.append(arm.target_m)
    steps_m = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(targets)]
    assert max(steps_m) <= SPEED_M_S / S + 1e-9
    along = (goal_m - begin_m) / np.linalg.norm(goal_m - begin_m)
    off_line_m = [np.linalg.norm(np.cross(target - begin_m, along)) for target in targets]
    assert max(off_line_m) < 1e-9
    assert np.linalg.norm(measured_m(arm) - goal_m) < 0.002
    arm.tick(begin_m, None)
    stopped_m = arm.target_m
    for _ in range(S):
        arm.tick(None, None)
    assert np.array_equal(arm.target_m, stopped_m)
    assert np.linalg.norm(measured_m(arm) - stopped_m) < 0.002


def test_its_gripper_is_measured_in_metres_and_keeps_the_last_command(arm: StandInArm) -> None:
    assert arm.finger_m == pytest.approx(0.04, abs=1e-4)
    arm.tick(None, 1.0)
    for _ in range(S):
        arm.tick(None, None)
    assert arm.finger_m < 0.02


def test_it_drives_to_a_start_ignoring_commands_and_the_block_is_put_back(arm: StandInArm) -> None:
    for _ in range(6 * S):
        arm.tick(arm.expert_target(0.002)[:3], 1.0)
    assert arm.success
    far_m = measured_m(arm)
    arm.put_back(7)
    ticks = next(n for n in itertools.count() if not (arm.tick(far_m, 1.0), arm.is_homing)[1])
    hand_m, block_m = arm.start(7)
    assert ticks > 0.8 * np.linalg.norm(far_m - hand_m) / SPEED_M_S * S  # it has driven there
    assert np.linalg.norm(measured_m(arm) - hand_m) < 0.004
    assert np.allclose(arm.simulator_state()[:2], block_m)
    assert not arm.success
