"""Motion along a chunk: unchanged where no limit bites, slowed along its own path where one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.chunk import Chunk
from dp_ros.control.motion import Motion
from dp_ros.control.safety import Verdict
from dp_ros.schema import GateConfig, Horizons

DT, DT_S = 12_500_000, 0.0125
HOME_M = np.array([0.0, 0.6, 0.2])
HORIZONS = Horizons()
Array = NDArray[np.float64]
SMOOTH = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0, "max_jerk_m_s3": 400.0}


class Run:
    """One long chunk, whose actions are those of a path."""

    def __init__(self, path: Array, **gate: Any) -> None:
        """path (N, 3): the action of each tick; the first one is where the arm is."""
        self.path, self.motion = path, Motion(GateConfig(**gate), DT_S)
        self.motion.begin(path[0])
        self.positions = [path[0]]
        self.limits: list[Verdict | None] = []
        self.chunk = Chunk.after(DT, DT, np.append(path, np.zeros((len(path), 1)), axis=1), HORIZONS)

    def run(self, ticks: int) -> Run:
        for _ in range(ticks):
            step, self.chunk = self.motion.follow_chunk(self.chunk, len(self.positions) * DT, DT_S)
            self.positions.append(step.position_m)
            self.limits.append(step.limit)
        return self

    def off_path_m(self) -> float:
        """Longest distance of a command from the path."""
        begin, way = self.path[:-1], np.diff(self.path, axis=0)
        length2 = np.maximum((way**2).sum(axis=1), 1e-18)
        away = []
        for position in self.positions:
            share = np.clip(((position - begin) * way).sum(axis=1) / length2, 0.0, 1.0)
            away.append(np.linalg.norm(position - begin - share[:, None] * way, axis=1).min())
        return float(max(away))

    def settled(self) -> int:
        """Ticks until every later command is within a millimetre of the end."""
        away_m = np.linalg.norm(np.array(self.positions) - self.path[-1], axis=1)
        return int(np.flatnonzero(away_m > 1e-3)[-1]) + 1

    def rates(self) -> list[float]:
        """Largest speed, acceleration and jerk."""
        at = np.array([self.positions[0]] * 3 + self.positions)
        return [float(np.linalg.norm(np.diff(at, n=n, axis=0), axis=1).max()) / DT_S**n for n in (1, 2, 3)]


def corner(step_m: float = 0.005, side: int = 20) -> Array:
    """Along x, then along y, then rest."""
    x = np.concatenate([np.arange(side), np.full(side + 20, side - 1)])
    y = np.concatenate([np.zeros(side), np.arange(side), np.full(20, side - 1)])
    return HOME_M + step_m * np.stack([x, y, np.zeros_like(x)], axis=1)


def arc(n: int = 44) -> Array:
    """Half a circle, then rest."""
    turn = np.append(np.linspace(0, np.pi, n), np.full(20, np.pi))
    return HOME_M + 0.04 * np.stack([1 - np.cos(turn), np.sin(turn), 0 * turn], axis=1)


def test_where_no_limit_bites_the_actions_are_commanded_to_the_bit() -> None:
    path = arc()
    run = Run(path, max_speed_m_s=1.6).run(len(path) - 1)
    np.testing.assert_array_equal(run.positions[1:], path[1:])
    assert set(run.limits) == {None}


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4, 0.1])
@pytest.mark.parametrize("path", [corner(), arc()], ids=["corner", "arc"])
def test_limit_of_speed_slows_along_the_path_and_takes_as_much_longer(path: Array, share: float) -> None:
    top = np.linalg.norm(np.diff(path, axis=0), axis=1).max() / DT_S
    run = Run(path, max_speed_m_s=share * top).run(round(len(path) / share) + 8)
    assert run.off_path_m() < 1e-9
    assert run.rates()[0] <= share * top * (1 + 1e-9)
    assert set(run.limits) >= {Verdict.LIMITED_SPEED}
    np.testing.assert_allclose(run.positions[-1], path[-1], atol=1e-6)


def test_clipping_the_axes_leaves_the_path() -> None:
    """The comparison: the chunk goes on by the clock, and the arm cuts the corner."""
    path = corner()
    clipped = Run(path, max_speed_m_s=0.16, slowing="axes").run(150)
    assert clipped.off_path_m() > 0.004
    assert clipped.rates()[0] <= 0.16 * (1 + 1e-9)


@pytest.mark.parametrize("slowing", ["path", "axes"])
@pytest.mark.parametrize("path", [corner(), arc()], ids=["corner", "arc"])
def test_acceleration_and_jerk_are_kept_and_the_goal_is_reached(path: Array, slowing: str) -> None:
    run = Run(path, slowing=slowing, **SMOOTH).run(400)
    speed, acceleration, jerk = run.rates()
    assert speed <= 0.4 * (1 + 1e-6)
    assert acceleration <= 4.0 * (1 + 1e-6)
    assert jerk <= 400.0 * (1 + 1e-6)
    np.testing.assert_allclose(run.positions[-1], path[-1], atol=1e-4)


def test_with_limits_of_acceleration_the_arm_stays_near_its_path() -> None:
    exact = SMOOTH | {"path_tolerance_m": 0.0}
    assert Run(arc(), **exact).run(300).off_path_m() < 1e-3
    assert Run(corner(), **exact).run(300).off_path_m() < 3e-3


PANDA = {"max_speed_m_s": 1.7, "max_acceleration_m_s2": 13.0, "max_jerk_m_s3": 6500.0}
SOFT = {"max_speed_m_s": 0.92, "max_acceleration_m_s2": 13.9, "max_jerk_m_s3": 93.0}


def walk(step_m: float) -> Array:
    """Random steps, then rest."""
    way = np.cumsum(np.random.default_rng(3).normal(0.0, step_m, (30, 3)), axis=0)
    return HOME_M + np.concatenate([np.zeros((1, 3)), way, np.tile(way[-1], (20, 1))])


def to_and_fro(step_m: float) -> Array:
    """Along x and back twice, at full speed, then rest."""
    x = step_m * np.concatenate([np.tile([*range(8), *range(8, 0, -1)], 2), np.zeros(20)])
    return HOME_M + np.stack([x, 0 * x, 0 * x], axis=1)


@pytest.mark.parametrize("limits", [SMOOTH, PANDA, SOFT], ids=["smooth", "panda", "soft"])
@pytest.mark.parametrize(
    "path", [corner(), arc(), walk(0.006), to_and_fro(0.011)], ids=["corner", "arc", "walk", "to-and-fro"]
)
def test_commands_leave_the_path_by_the_tolerance_at_most_and_are_no_later(
    path: Array, limits: dict[str, float]
) -> None:
    """Beyond what the limits ask of an arm that is told to be exactly on it."""
    wide = {"workspace_low_m": (-2.0, -2.0, -2.0), "workspace_high_m": (2.0, 2.0, 2.0)}
    exact = Run(path, **limits, **wide, path_tolerance_m=0.0).run(250)
    run = Run(path, **limits, **wide, path_tolerance_m=0.01).run(250)
    assert run.off_path_m() <= 0.01 + exact.off_path_m()
    assert run.settled() <= 1.05 * exact.settled() + 2


def test_a_corner_is_cut_where_it_may_be() -> None:
    path = np.delete(corner(), 19, axis=0)  # where it rests for a tick
    near, exact = (Run(path, **SMOOTH, path_tolerance_m=m).run(300) for m in (0.02, 0.0))
    assert 0.005 < near.off_path_m() <= 0.02
    assert near.settled() < exact.settled()
    assert Verdict.LIMITED_ACCELERATION in near.limits
    np.testing.assert_allclose(near.positions[-1], corner()[-1], atol=1e-4)


def test_a_smoothed_action_is_told_of_and_the_others_are_not() -> None:
    path = HOME_M + np.stack([0.005 * np.arange(16), 0.003 * (-1.0) ** np.arange(16), np.zeros(16)], 1)
    chunk = Chunk.after(DT, DT, np.append(path, np.zeros((16, 1)), axis=1), HORIZONS)
    motion = Motion(GateConfig(**SMOOTH, path_tolerance_m=0.01), DT_S)
    motion.begin(path[0])
    near = motion.near(chunk, 4.0)  # the actions up to that one are done, and the last one stays
    beside = [motion.is_beside(near, DT * tick) for tick in (2, 4, 6, 10, 14, 15)]
    assert beside == [False, False, True, True, True, False]
    assert not motion.is_beside(chunk, DT * 6)  # which is not followed


def test_where_no_limit_bites_the_tolerance_changes_no_bit() -> None:
    path = HOME_M + 0.002 * np.minimum(np.arange(60), 40)[:, None] * np.array([0.0, 1.0, 0.0])
    run = Run(path, **PANDA, path_tolerance_m=0.02).run(59)
    np.testing.assert_array_equal(run.positions[1:], path[1:])
    assert set(run.limits) == {None}


def test_within_the_tolerance_a_path_that_trembles_takes_half_the_time() -> None:
    """Exactly on it, the arm would have to slow down for each of its bends."""
    side = 0.003 * (-1.0) ** np.arange(60)
    side[[0, -20, -1]] = 0.0
    path = HOME_M + np.stack(
        [0.005 * np.minimum(np.arange(60), 40), np.where(np.arange(60) < 40, side, 0), 0 * side], 1
    )
    smooth = path * [1, 0, 1] + HOME_M * [0, 1, 0]

    def ticks(path: Array, tolerance_m: float) -> int:
        run = Run(path, **(SMOOTH | {"max_speed_m_s": 1.0}), path_tolerance_m=tolerance_m).run(400)
        np.testing.assert_allclose(run.positions[-1], path[-1], atol=1e-4)
        return run.settled()

    assert ticks(path, 0.02) < 1.5 * ticks(smooth, 0.0)
    assert ticks(path, 0.0) > 2.0 * ticks(path, 0.02)


@pytest.mark.parametrize("seed", range(4))
def test_an_arm_that_was_told_to_rest_settles_after_chunks_that_tremble(seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = np.concatenate([HOME_M + np.cumsum(rng.normal(0, 0.004, (60, 3)), axis=0), np.zeros((500, 3))])
    path[0], path[60:] = HOME_M, HOME_M
    run = Run(path, **(SMOOTH | {"max_jerk_m_s3": 100.0}), path_tolerance_m=0.03).run(550)
    np.testing.assert_allclose(run.positions[-40:], np.tile(HOME_M, (40, 1)), atol=1e-4)
    assert run.rates()[2] <= 100.0 * (1 + 1e-6)


@pytest.mark.parametrize("ticks", [9, 17, 30])
def test_hold_slows_down_along_the_path(ticks: int) -> None:
    run = Run(arc(), **SMOOTH, path_tolerance_m=0.0).run(ticks)
    assert run.motion.is_moving
    while run.motion.is_moving:
        run.positions.append(run.motion.hold(DT_S))
        assert len(run.positions) < 60
    _, acceleration, jerk = run.rates()
    assert acceleration <= 4.0 * (1 + 1e-6)
    assert jerk <= 400.0 * (1 + 1e-6)
    assert run.off_path_m() < 1e-3
    np.testing.assert_array_equal(run.motion.hold(DT_S), run.positions[-1])


def test_without_limits_of_acceleration_a_hold_stops_at_once() -> None:
    run = Run(arc(), max_speed_m_s=1.6).run(10)
    np.testing.assert_array_equal(run.motion.hold(DT_S), run.positions[-1])
    assert not run.motion.is_moving


def test_motion_begins_slowly_and_again_after_a_stop() -> None:
    path = HOME_M + 0.002 * np.arange(64)[:, None] * np.array([0.0, 1.0, 0.0])
    run = Run(path, max_speed_m_s=0.16, ramp_s=0.5).run(50)
    speeds = np.linalg.norm(np.diff(run.positions, axis=0), axis=1) / DT_S
    assert (speeds <= 0.16 * np.minimum(1.0, np.arange(1, 51) * DT_S / 0.5) * (1 + 1e-9)).all()
    assert speeds[-1] == pytest.approx(0.16)
    run.motion.hold(DT_S)
    run.motion.hold(DT_S)
    count = len(run.positions)
    run.run(3)
    again = np.linalg.norm(np.diff(run.positions[count - 1 :], axis=0), axis=1) / DT_S
    assert again[0] <= 0.16 * DT_S / 0.5 * (1 + 1e-9)


def test_motion_begins_slowly_again_after_a_hold_along_the_path() -> None:
    run = Run(arc(), ramp_s=0.5, **SMOOTH).run(60)
    while run.motion.is_moving:
        run.motion.hold(DT_S)
    count = len(run.positions)
    run.positions += [run.positions[-1]] * 5  # time passes
    run.run(3)
    again = np.linalg.norm(np.diff(run.positions[count + 5 :], axis=0), axis=1) / DT_S
    assert again.max() <= 0.4 * 4 * DT_S / 0.5


@pytest.mark.parametrize(
    ("acceleration", "jerk"), [(0.0, 0.0), (4.0, 0.0), (4.0, 100.0), (0.1, 0.0), (0.1, 0.2)]
)
@pytest.mark.parametrize("path", [corner(0.002, 40), arc()], ids=["corner", "arc"])
def test_a_stop_takes_a_few_times_the_shortest_at_most(path: Array, acceleration: float, jerk: float) -> None:
    limits = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": acceleration, "max_jerk_m_s3": jerk}
    for ticks in (5, 20, 40, 80):
        run = Run(path, **limits).run(ticks)
        needed = 0
        while run.motion.is_moving:
            run.positions.append(run.motion.hold(DT_S))
            needed += 1
            assert needed < 2000
        speed = np.linalg.norm(np.subtract(run.positions[ticks], run.positions[ticks - 1])) / DT_S
        shortest_s = speed / acceleration if acceleration else 0.0
        shortest_s += 2 * acceleration / jerk if jerk else 0.0
        assert needed * DT_S <= 2.5 * shortest_s + 0.1


def test_speed_that_is_lowered_under_way_is_reached_within_the_limits() -> None:
    path = HOME_M + 0.004 * np.arange(64)[:, None] * np.array([0.0, 1.0, 0.0])
    gate = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0}
    run = Run(path, **gate).run(30)
    run.motion.configure(GateConfig(**{**gate, "max_speed_m_s": 0.1}))
    run.run(30)
    speeds = np.linalg.norm(np.diff(run.positions, axis=0), axis=1) / DT_S
    assert speeds[29] > 0.3
    assert np.abs(np.diff(speeds)).max() <= 4.0 * DT_S * (1 + 1e-6)
    assert speeds[-1] <= 0.1 * (1 + 1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_action_that_cannot_be_ends_the_path_before_it(value: float) -> None:
    actions = np.zeros((8, 4))
    actions[:, :3] = HOME_M + 0.002 * np.arange(8)[:, None]
    actions[4:, 0] = value
    motion = Motion(GateConfig(**SMOOTH), DT_S)
    motion.begin(HOME_M)
    chunk = Chunk.after(0, DT, actions, HORIZONS)
    for tick in range(3):
        step, chunk = motion.follow_chunk(chunk, tick * DT, DT_S)
        assert np.isfinite(step.position_m).all()


def test_gripper_keeps_its_range_and_its_rate() -> None:
    motion = Motion(GateConfig(gripper_low=-0.5, gripper_high=0.8, max_gripper_rate_per_s=4.0), DT_S)
    assert motion.grip(None, 1.0, DT_S) == (0.8, True)
    assert motion.grip(0.0, 0.04, DT_S) == (0.04, False)
    assert motion.grip(0.0, -1.0, DT_S) == (pytest.approx(-0.05), True)
    assert Motion(GateConfig(), DT_S).grip(-1.0, 3.0, DT_S) == (1.0, False)
    assert motion.grip(1.0, 1.0, DT_S) == (0.8, True)  # it was commanded before the range was tightened
