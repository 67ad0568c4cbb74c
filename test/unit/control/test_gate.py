"""The gate: whatever comes in, what leaves is finite, near and inside."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dp_ros.control.safety import Command, Gate, Verdict
from dp_ros.poses import angle_rad, is_unit
from dp_ros.schema import GateConfig

DT_S = 0.0125
LOW, HIGH = (-0.2, 0.4, 0.0), (0.2, 0.8, 0.5)
GATE = Gate(
    GateConfig(
        workspace_low_m=LOW, workspace_high_m=HIGH, max_speed_m_s=1.6, max_turn_rad=0.4, max_obs_age_s=0.1
    )
)
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
DOWN = np.array([0.0, 1.0, 0.0, 0.0])
LAST = Command(0, np.array([0.0, 0.6, 0.2]), 0.3, DOWN)


def check(
    action: NDArray[np.float64] | None, last: Command, age_s: float, now_ns: int
) -> tuple[Command, Verdict]:
    """The gate with a tool that points down, as measured."""
    return GATE.check(action, DOWN, last, DOWN, age_s, now_ns, DT_S)


def turned(angle_rad: float) -> NDArray[np.float64]:
    """A tool that points down, turned about x."""
    return (Rotation.from_rotvec([angle_rad, 0.0, 0.0]) * Rotation.from_quat(DOWN)).as_quat()


def vector(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def inside(position_m: NDArray[np.float64]) -> bool:
    return bool((position_m >= np.array(LOW) - 1e-12).all() and (position_m <= np.array(HIGH) + 1e-12).all())


@given(
    action=st.none() | st.tuples(ANYTHING, ANYTHING, ANYTHING, ANYTHING).map(lambda a: np.array(a)),
    last=st.tuples(*[st.floats(-5, 5)] * 3),
    gripper=st.floats(-1, 1),
    age_s=ANYTHING,
)
@example(vector(1e308, -1e308, 1e308, 1e308), (0.0, 0.6, 0.2), 0.0, 0.0)
@example(vector(0.2, 0.8, 0.5, 1.0), (0.19, 0.79, 0.49), 0.0, 0.0)
def test_whatever_comes_in_what_leaves_is_finite_near_and_inside(
    action: NDArray[np.float64] | None, last: tuple[float, float, float], gripper: float, age_s: float
) -> None:
    before = Command(0, np.array(last), gripper, DOWN)
    command, verdict = check(action, before, age_s, 7)
    assert command.stamp_ns == 7
    assert np.isfinite(command.as_array()).all()
    assert np.linalg.norm(command.position_m - before.position_m) <= 0.02 + 1e-12
    assert -1 <= command.gripper <= 1
    if inside(before.position_m):
        assert inside(command.position_m)
    if verdict.holds:
        np.testing.assert_array_equal(command.as_array(), before.as_array())
    if verdict is Verdict.PASS:
        assert action is not None
        np.testing.assert_array_equal(command.position_m, action[:3])


@given(st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=30, max_size=30))
def test_an_arm_that_starts_outside_comes_in_step_by_step_and_never_leaves(
    wishes: list[tuple[float, float, float]],
) -> None:
    last, was_inside = Command(0, vector(0.3, 0.6, 0.2), 0.0, DOWN), False
    for t, wish in enumerate(wishes):
        command, _ = check(vector(*wish, 0.0), last, 0.0, t)
        was_inside = was_inside or inside(last.position_m)
        assert inside(command.position_m) or not was_inside
        last = command


@pytest.mark.parametrize(
    ("action", "age_s", "verdict", "position"),
    [
        ((0.01, 0.6, 0.2, 0.5), 0.0, Verdict.PASS, (0.01, 0.6, 0.2)),
        ((0.02, 0.6, 0.2, 0.5), 0.1, Verdict.PASS, (0.02, 0.6, 0.2)),
        ((0.05, 0.6, 0.2, 0.5), 0.0, Verdict.LIMITED_SPEED, (0.02, 0.6, 0.2)),
        ((9.00, 0.6, 0.2, 0.5), 0.0, Verdict.LIMITED_SPEED, (0.02, 0.6, 0.2)),
        ((0.03, 0.64, 0.2, 0.5), 0.0, Verdict.LIMITED_SPEED, (0.012, 0.616, 0.2)),
        ((0.01, 0.6, 0.2, 0.5), 0.101, Verdict.HOLD_STALE, (0.0, 0.6, 0.2)),
        ((0.01, 0.6, 0.2, 0.5), -0.001, Verdict.HOLD_STALE, (0.0, 0.6, 0.2)),
        ((0.01, 0.6, 0.2, 0.5), math.nan, Verdict.HOLD_STALE, (0.0, 0.6, 0.2)),
        ((0.01, 0.6, 0.2, 0.5), math.inf, Verdict.HOLD_STALE, (0.0, 0.6, 0.2)),
        (None, 0.0, Verdict.HOLD_NO_PLAN, (0.0, 0.6, 0.2)),
        ((0.01, math.nan, 0.2, 0.5), 0.0, Verdict.HOLD_NOT_FINITE, (0.0, 0.6, 0.2)),
        ((0.01, math.inf, 0.2, 0.5), 0.0, Verdict.HOLD_NOT_FINITE, (0.0, 0.6, 0.2)),
        ((0.01, 0.6, 0.2, math.nan), 0.0, Verdict.HOLD_NOT_FINITE, (0.0, 0.6, 0.2)),
    ],
)
def test_every_verdict_has_its_cause(
    action: tuple[float, ...] | None, age_s: float, verdict: Verdict, position: tuple[float, ...]
) -> None:
    command, found = check(None if action is None else vector(*action), LAST, age_s, 1)
    assert found is verdict
    np.testing.assert_allclose(command.position_m, position, atol=1e-12)
    assert command.gripper == (0.3 if verdict.holds else 0.5)


def test_action_outside_the_workspace_is_moved_to_its_nearest_point() -> None:
    last = Command(0, vector(0.195, 0.6, 0.2), 0.0, DOWN)
    command, verdict = check(vector(0.21, 0.605, 0.2, 0.0), last, 0.0, 1)
    assert verdict is Verdict.LIMITED_WORKSPACE
    np.testing.assert_allclose(command.position_m, [0.2, 0.605, 0.2], atol=1e-12)


def test_limit_at_the_wall_slides_along_it_instead_of_stopping_before_it() -> None:
    """First the box, then the step: else a far wish through the wall would keep the arm from moving along it."""
    last = Command(0, vector(0.2, 0.6, 0.2), 0.0, DOWN)
    command, _ = check(vector(5.0, 0.61, 0.2, 0.0), last, 0.0, 1)
    np.testing.assert_allclose(command.position_m, [0.2, 0.61, 0.2], atol=1e-12)


def test_gripper_is_clipped_without_a_limit_on_the_position() -> None:
    command, verdict = check(vector(0.01, 0.6, 0.2, 3.0), LAST, 0.0, 1)
    assert (command.gripper, verdict) == (1.0, Verdict.PASS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_without_a_finite_last_command_nothing_is_allowed(bad: float) -> None:
    """A step cannot be measured from nowhere: a verdict that says `limited` would be a lie."""
    last = Command(0, vector(bad, 0.6, 0.2), 0.0, DOWN)
    _, verdict = check(vector(0.0, 0.6, 0.2, 0.0), last, 0.0, 1)
    assert verdict is Verdict.HOLD_NOT_FINITE


def test_holding_verdicts_are_named_so() -> None:
    assert {v for v in Verdict if v.holds} == {
        Verdict.HOLD_STALE,
        Verdict.HOLD_NO_PLAN,
        Verdict.HOLD_NOT_FINITE,
        Verdict.HOLD_TURNED,
        Verdict.HOLD_WALL,
        Verdict.HOLD_SKEWED,
        Verdict.HOLD_OLD_PLAN,
        Verdict.HOLD_FAR,
        Verdict.HOLD_FROZEN,
        Verdict.HOLD_STOPPED,
        Verdict.HOLD_OTHER_COMMANDER,
        Verdict.HOLD_RECOVERING,
        Verdict.HOLD_OOD,
    }


@pytest.mark.parametrize(
    ("position", "may"),
    [
        ((0.0, 0.6, 0.2), True),
        (HIGH, True),
        ((0.22, 0.6, 0.2), True),  # one step outside
        ((0.2201, 0.6, 0.2), False),
        ((0.215, 0.815, 0.2), False),  # more than one step, though no axis is
        ((0.0, 600.0, 200.0), False),  # millimetres
        ((math.nan, 0.6, 0.2), False),
        ((0.0, math.inf, 0.2), False),
    ],
)
def test_episode_may_begin_at_most_one_step_outside_the_workspace(
    position: tuple[float, ...], may: bool
) -> None:
    assert GATE.may_begin(vector(*position)) is may


# ---- orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("angle", "moves"), [(0.0, True), (0.39, True), (-0.39, True), (0.41, False), (math.pi, False)]
)
def test_tool_is_never_told_to_turn_further_than_allowed(angle: float, moves: bool) -> None:
    measured = turned(angle)
    command, verdict = GATE.check(vector(0.01, 0.6, 0.2, 0.5), DOWN, LAST, measured, 0.0, 1, DT_S)
    assert verdict is (Verdict.PASS if moves else Verdict.HOLD_TURNED)
    np.testing.assert_array_equal(command.orientation, DOWN)
    np.testing.assert_allclose(command.position_m, [0.01 if moves else 0.0, 0.6, 0.2])


def test_opposite_signs_of_a_quaternion_are_one_orientation() -> None:
    command, verdict = GATE.check(vector(0.01, 0.6, 0.2, 0.5), -DOWN, LAST, DOWN, 0.0, 1, DT_S)
    assert verdict is Verdict.PASS
    np.testing.assert_array_equal(command.orientation, -DOWN)


@pytest.mark.parametrize(
    "bad", [(0, 0, 0, 0), (0, 2, 0, 0), (0, 0.998, 0, 0), (math.nan, 1, 0, 0), (math.inf, 0, 0, 0)]
)
def test_without_a_valid_orientation_nothing_moves(bad: tuple[float, ...]) -> None:
    for orientation, measured in ((vector(*bad), DOWN), (DOWN, vector(*bad))):
        command, verdict = GATE.check(vector(0.01, 0.6, 0.2, 0.5), orientation, LAST, measured, 0.0, 1, DT_S)
        assert verdict is Verdict.HOLD_NOT_FINITE
        np.testing.assert_array_equal(command.position_m, LAST.position_m)


@given(
    kept=st.tuples(*[st.floats(-1, 1)] * 3),
    measured=st.tuples(*[st.floats(-4, 4)] * 3),
    age_s=ANYTHING,
    has_plan=st.booleans(),
)
def test_every_command_far_from_the_measured_orientation_is_marked(
    kept: tuple[float, ...], measured: tuple[float, ...], age_s: float, has_plan: bool
) -> None:
    orientation, seen = (Rotation.from_rotvec(v).as_quat() for v in (kept, measured))
    action = vector(0.01, 0.6, 0.2, 0.5) if has_plan else None
    command, verdict = GATE.check(action, orientation, LAST, seen, age_s, 1, DT_S)
    assert is_unit(command.orientation)
    if 0.0 <= age_s <= GATE.config.max_obs_age_s:
        assert (angle_rad(command.orientation, seen) > 0.4) is (verdict is Verdict.HOLD_TURNED)


def test_gripper_that_was_never_commanded_stays_so_in_a_hold() -> None:
    last = Command(0, vector(0.0, 0.6, 0.2), None, DOWN)
    hold, verdict = check(None, last, 0.0, 1)
    assert (hold.gripper, verdict) == (None, Verdict.HOLD_NO_PLAN)
    assert np.isnan(hold.as_array()[3])
    moved, _ = check(vector(0.0, 0.6, 0.2, 0.5), last, 0.0, 2)
    assert moved.gripper == 0.5
