"""A chunk that a hold keeps goes on where the arm left it: actions of the held ticks are not skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dp_ros.control.controller import Controller
from dp_ros.control.planner import InlinePlanner, PlanRequest
from dp_ros.control.safety import Verdict
from dp_ros.poses import make_pose
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT_NS, START_NS = 12_500_000, 10**12
STEP_M = 0.002
DOWN = (0.0, 1.0, 0.0, 0.0)
HELD = range(21, 25)
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)


def straight(request: PlanRequest) -> np.ndarray:
    """Relative positions (8, 4): each action is 2 mm further along y than the one before."""
    chunk = np.zeros((8, 4))
    chunk[:, 1] = STEP_M * np.arange(8)
    return chunk


def drive(cause: str, gate: dict[str, Any]) -> tuple[list[Verdict], np.ndarray]:
    """Verdicts and steps (N, 3) of an arm that follows exactly, while `cause` holds it in the ticks `HELD`."""
    config = {"mode": "realtime", "gate": {"max_distance_m": 0.2, **gate}}
    controller = Controller(PolicyConfig(), RuntimeConfig.model_validate(config), InlinePlanner(straight))
    measured = np.array([0.0, 0.45, 0.2])
    verdicts, path = [], [measured]
    for tick in range(60):
        now_ns, is_held = START_NS + tick * DT_NS, tick in HELD
        if cause == "skew" or not is_held:
            skew_ns = 200_000_000 if is_held else 0
            pose = make_pose(measured, DOWN)
            controller.observe(Frame(now_ns, (PICTURES[tick % 8],), pose, 1.0, now_ns, skew_ns))
        else:
            controller.commander.measure(now_ns, make_pose(measured, DOWN))
        decision = controller.tick(now_ns)
        if decision is not None:
            verdicts.append(decision.verdict)
            measured = decision.command.position_m
            path.append(measured)
    return verdicts, np.diff(path, axis=0)


@pytest.mark.parametrize(
    ("cause", "verdict", "gate"),
    [
        ("skew", Verdict.HOLD_SKEWED, {}),
        ("skew", Verdict.HOLD_RECOVERING, {"recover_s": 0.1}),
        ("stale", Verdict.HOLD_RECOVERING, {"recover_s": 0.1, "max_obs_age_s": 0.03}),
    ],
)
@pytest.mark.parametrize("limits", [{}, {"max_acceleration_m_s2": 13.0, "max_jerk_m_s3": 6500.0}])
def test_no_action_is_skipped_after_a_hold(
    cause: str, verdict: Verdict, gate: dict[str, Any], limits: dict[str, float]
) -> None:
    verdicts, steps = drive(cause, gate | limits)
    assert verdict in verdicts
    assert verdicts[-1] is Verdict.PASS
    assert steps.max() <= STEP_M * (
        1.5 if limits else 1 + 1e-9
    )  # within limits, the arm may be a little behind
    np.testing.assert_allclose(steps[-5:, 1], STEP_M, rtol=1e-6)
