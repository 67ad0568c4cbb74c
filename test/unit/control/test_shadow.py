"""Shadow mode: plans and commands of an arm that does not follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.planner import InlinePlanner, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig, parse
from dp_ros.streams import Frame

DT = 50_000_000
T_O, T_P, T_A = 2, 8, 4
HOME_M = np.array([0.0, 0.6, 0.2])
STEP_M = 0.02  # along x in a tick: soon farther than max_distance_m from an arm that stands still


def forward(request: PlanRequest) -> NDArray[np.float64]:
    chunk = np.zeros((T_P, 4))
    chunk[:, 0] = STEP_M * (np.arange(T_P) - (T_O - 2))
    return chunk


def controller(**runtime: object) -> Controller:
    horizons = {"T_o": T_O, "T_p": T_P, "T_a": T_A}
    policy = PolicyConfig.model_validate({"horizons": horizons, "rate_hz": 20.0})
    gate = {"max_distance_m": 0.05, "max_frozen_s": 0.2}
    settings = RuntimeConfig.model_validate({"shadow": True, "gate": gate, **runtime})
    return Controller(policy, settings, InlinePlanner(forward))


def driven(
    c: Controller, make_frame: Callable[..., Frame], arm_m: Callable[[int], NDArray[np.float64]], ticks: int
) -> Iterator[PolicyDecision]:
    for tick in range(ticks):
        now_ns = 10**12 + tick * DT
        c.observe(make_frame(now_ns, tuple(arm_m(tick))))
        decision = c.tick(now_ns)
        assert decision is not None
        yield decision


def test_each_plan_begins_where_the_arm_is_and_an_arm_that_stands_still_is_no_fault(
    make_frame: Callable[..., Frame],
) -> None:
    """With a robot that should follow, the same arm ends in a hold."""
    decisions = list(driven(controller(), make_frame, lambda tick: HOME_M, 40))
    assert not any(d.is_silent for d in decisions)
    assert {d.verdict for d in decisions[1:]} == {Verdict.PASS}
    ahead_m = [float(d.command.position_m[0] - HOME_M[0]) for d in decisions[1:]]
    assert max(ahead_m) <= T_A * STEP_M + 1e-9
    assert min(ahead_m) > 0.0
    real = [d.verdict for d in driven(controller(shadow=False), make_frame, lambda tick: HOME_M, 40)]
    assert Verdict.HOLD_FAR in real or Verdict.HOLD_FROZEN in real


def test_commands_stay_near_an_arm_that_another_drives_elsewhere(make_frame: Callable[..., Frame]) -> None:
    def arm_m(tick: int) -> NDArray[np.float64]:
        return HOME_M + np.array([0.0, 0.004 * tick, 0.0])

    decisions = list(driven(controller(), make_frame, arm_m, 60))
    apart_m = [np.linalg.norm(d.command.position_m - arm_m(i)) for i, d in enumerate(decisions)]
    assert max(apart_m[1:]) < (T_A + 1) * STEP_M
    assert not any(d.verdict.holds for d in decisions[1:])


def test_lockstep_has_no_shadow() -> None:
    with pytest.raises(ConfigError, match="shadow goes with mode realtime"):
        parse(RuntimeConfig, {"shadow": True, "mode": "lockstep"}, where="robot.yaml")
