"""Commands between ticks under limits of acceleration and jerk: the same path in about the same time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.planner import DelayedPlanner, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.schema import GateConfig, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

START = 10**12
HOME_M = np.array([0.0, 0.6, 0.2])
RADIUS_M = 0.1
Array = NDArray[np.float64]
Path = Callable[[Array], Array]  # way (N,) [m] -> positions (N, 3)
GENTLE = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 2.0, "max_jerk_m_s3": 20.0}
QUICK = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0, "max_jerk_m_s3": 100.0}
FREE_JERK = {"max_speed_m_s": 0.4, "max_acceleration_m_s2": 4.0}


def line(way_m: Array) -> Array:
    return HOME_M + np.outer(way_m, [1.0, 0.0, 0.0])


def circle(way_m: Array) -> Array:
    turn = way_m / RADIUS_M
    return HOME_M + RADIUS_M * np.stack([np.sin(turn), 1.0 - np.cos(turn), 0.0 * turn], axis=1)


class Run:
    """Plans along a path at 0.5 m/s from where the last command is on it; the commands that come out."""

    def __init__(
        self, make_frame: Callable[..., Frame], path: Path, rate_hz: float, fine_hz: float, **gate: Any
    ) -> None:
        policy = PolicyConfig.model_validate({"rate_hz": rate_hz, "action": {"position": "absolute"}})
        free = {
            "max_distance_m": 0.0,
            "max_frozen_s": 0.0,
            "workspace_low_m": (-1, -1, -1),
            "workspace_high_m": (2, 2, 2),
        }
        runtime = RuntimeConfig.model_validate(
            {"mode": "realtime", "command_rate_hz": fine_hz, "gate": {**free, **gate}}
        )
        self._path, self._make_frame, self._rate_hz = path, make_frame, rate_hz
        self._known_m = np.linspace(0.0, 1.2, 12001)
        self._known = path(self._known_m)
        planner = DelayedPlanner(self._plan, 0, lambda: self.now_ns)  # the time of the computer plays no part
        self.controller = Controller(policy, runtime, planner)
        self.now_ns, self.positions = START, [HOME_M]
        self.verdicts: set[Verdict] = set()

    def _plan(self, request: PlanRequest) -> Array:
        at_m = self._known_m[np.linalg.norm(self._known - request.reference_m, axis=1).argmin()]
        actions = self._path(at_m + 0.5 / self._rate_hz * np.arange(8))
        return np.append(actions, np.zeros((8, 1)), axis=1)

    def run(self, seconds: float) -> Run:
        end_ns = self.now_ns + round(seconds * 1e9)
        while self.now_ns < end_ns:
            if self.controller.is_between(self.now_ns):
                command = self.controller.between(self.now_ns)
            else:
                self.controller.observe(self._make_frame(self.now_ns, tuple(HOME_M)))
                decision = self.controller.tick(self.now_ns)
                assert decision is not None
                self.verdicts.add(decision.verdict)
                command = decision.command
            assert command is not None
            self.positions.append(command.position_m)
            self.now_ns += self.controller.period_ns
        return self

    @property
    def way_m(self) -> float:
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())

    @property
    def reached_m(self) -> float:
        """Along x."""
        return float(self.positions[-1][0] - HOME_M[0])

    @property
    def off_path_m(self) -> float:
        return float(max(np.linalg.norm(self._known - each, axis=1).min() for each in self.positions[::8]))

    def assert_within(self, gate: GateConfig) -> None:
        at, h = np.array([HOME_M] * 2 + self.positions), self.controller.period_ns / 1e9
        most = (gate.max_speed_m_s, gate.max_acceleration_m_s2, gate.max_jerk_m_s3 or math.inf)
        for order, limit in enumerate(most, start=1):
            found = np.linalg.norm(np.diff(at, n=order, axis=0), axis=1).max() / h**order
            assert found <= limit * (1 + 1e-6)


@pytest.mark.parametrize("fine_hz", [80, 400])
@pytest.mark.parametrize(("limits", "least_m"), [(GENTLE, 0.52), (QUICK, 0.56), (FREE_JERK, 0.56)])
def test_a_straight_path_takes_no_longer_than_the_limits_need(
    make_frame: Callable[..., Frame], limits: dict[str, float], least_m: float, fine_hz: float
) -> None:
    """The speed alone allows 0.6 m."""
    run = Run(make_frame, line, 20.0, fine_hz, **limits).run(1.5)
    assert run.way_m > least_m
    assert run.off_path_m < 1e-4
    run.assert_within(GateConfig(**limits))


@pytest.mark.parametrize("fine_hz", [80, 400])
@pytest.mark.parametrize(("limits", "off_m"), [(GENTLE, 0.006), (QUICK, 0.003), (FREE_JERK, 0.003)])
def test_a_bend_is_followed_in_about_the_time_that_it_takes_without_commands_between(
    make_frame: Callable[..., Frame], limits: dict[str, float], off_m: float, fine_hz: float
) -> None:
    """The curve through the actions is 2 mm off the circle by itself."""
    exact = {**limits, "path_tolerance_m": 0.0}
    coarse = Run(make_frame, circle, 20.0, 0.0, **exact).run(1.5)
    fine = Run(make_frame, circle, 20.0, fine_hz, **exact).run(1.5)
    assert fine.way_m > 0.8 * coarse.way_m
    assert fine.off_path_m < off_m
    fine.assert_within(GateConfig(**limits))


@pytest.mark.parametrize("fine_hz", [0, 80, 400])
def test_chunks_that_tremble_are_followed_faster_within_the_tolerance(
    make_frame: Callable[..., Frame], fine_hz: float
) -> None:
    def trembling(way_m: Array) -> Array:
        side_m = 0.004 * np.sin(np.pi * way_m / 0.0125)
        return line(way_m) + np.outer(side_m, [0.0, 1.0, 0.0])

    limits = {"max_speed_m_s": 0.5, "max_acceleration_m_s2": 2.0, "max_jerk_m_s3": 200.0}
    exact, near = (
        Run(make_frame, trembling, 80.0, fine_hz, **limits, path_tolerance_m=m).run(1.0) for m in (0.0, 0.006)
    )
    assert near.reached_m > 1.5 * exact.reached_m
    assert near.off_path_m < 0.01
    near.assert_within(GateConfig(**limits))


def test_commands_at_a_higher_rate_go_as_far(make_frame: Callable[..., Frame]) -> None:
    ways_m = [Run(make_frame, circle, 80.0, fine_hz, **QUICK).run(0.8).way_m for fine_hz in (160, 400, 800)]
    assert min(ways_m) > 0.85 * max(ways_m) > 0.1


def test_a_limit_of_acceleration_that_comes_between_two_ticks_holds_from_the_next_command_on(
    make_frame: Callable[..., Frame],
) -> None:
    """The piece of the curve was begun without it."""
    run = Run(make_frame, line, 20.0, 200.0, max_speed_m_s=0.4).run(0.52)
    assert run.controller.is_between(run.now_ns)
    run.controller.commander.limit(
        run.controller.commander.config.model_copy(update={"max_acceleration_m_s2": 2.0})
    )
    count = len(run.positions) - 2
    run.run(0.3)
    change = np.linalg.norm(np.diff(run.positions[count:], n=2, axis=0), axis=1) * 200.0**2
    assert change.max() <= 2.0 * (1 + 1e-6)
