"""A chunk that a hold keeps goes on where the arm left it: actions of the held ticks are not skipped."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize("command_rate_hz", [0.0, 40.0])
@pytest.mark.parametrize("held", [range(15, 21), range(16, 18), range(19, 27)])
def test_an_arm_that_braked_along_its_chunk_does_not_go_back(held: range, command_rate_hz: float) -> None:
    """One chunk of 14 actions is in use before, during and after the hold."""
    path: list[np.ndarray] = []
    policy = PolicyConfig.model_validate({"rate_hz": 20.0, "horizons": {"T_o": 2, "T_p": 16, "T_a": 14}})
    gate = {"max_distance_m": 0.0, "max_acceleration_m_s2": 1.0, "max_obs_age_s": 0.2}
    config = {"mode": "realtime", "command_rate_hz": command_rate_hz, "gate": gate}
    runtime = RuntimeConfig.model_validate(config)

    def ahead(request: PlanRequest) -> np.ndarray:
        chunk = np.zeros((16, 4))
        chunk[:, 1] = 0.008 * np.arange(16)
        return chunk

    controller = Controller(policy, runtime, InlinePlanner(ahead))
    measured, now_ns = np.array([0.0, 0.35, 0.2]), START_NS
    for tick in range(40):
        now_ns, pose = START_NS + tick * controller.dt_ns, make_pose(measured, DOWN)
        skew_ns = 200_000_000 if tick in held else 0
        controller.observe(Frame(now_ns, (PICTURES[tick % 8],), pose, 1.0, now_ns, skew_ns))
        decision = controller.tick(now_ns)
        commands = [] if decision is None else [decision.command]
        while controller.is_between(now_ns := now_ns + controller.period_ns):
            commands.append(controller.between(now_ns))  # type: ignore[arg-type]
        path += [command.position_m for command in commands if command is not None]
        measured = path[-1] if path else measured
    steps = np.diff(path, axis=0)[:, 1]
    assert steps.min() >= -1e-9
    assert steps.max() <= 1.5 * 0.008 / (2 if command_rate_hz else 1)
    assert path[-1][1] > 0.5


def drive_skewed(
    is_held: Callable[[int], bool], rate_hz: float, T_a: int, command_rate_hz: float = 0.0
) -> tuple[list[Verdict], np.ndarray, int]:
    """Verdicts, steps along y of all commands, and the number of plans, each of 16 actions that are 10 mm apart."""
    plans, path, verdicts = [], [], []
    policy = PolicyConfig.model_validate({"rate_hz": rate_hz, "horizons": {"T_o": 2, "T_p": 16, "T_a": T_a}})
    gate = {"max_distance_m": 0.0, "max_obs_age_s": 0.3}
    runtime = RuntimeConfig.model_validate(
        {"mode": "realtime", "command_rate_hz": command_rate_hz, "gate": gate}
    )

    def ahead(request: PlanRequest) -> np.ndarray:
        plans.append(request)
        chunk = np.zeros((16, 4))
        chunk[:, 1] = 0.01 * np.arange(16)
        return chunk

    controller = Controller(policy, runtime, InlinePlanner(ahead))
    measured = np.array([0.0, 0.35, 0.2])
    for tick in range(60):
        now_ns = START_NS + tick * controller.dt_ns
        skew_ns = 200_000_000 if is_held(tick) else 0
        pose = make_pose(measured, DOWN)
        controller.observe(Frame(now_ns, (PICTURES[tick % 8],), pose, 1.0, now_ns, skew_ns))
        if (decision := controller.tick(now_ns)) is None:
            continue
        verdicts.append(decision.verdict)
        path.append(decision.command.position_m)
        while controller.is_between(now_ns := now_ns + controller.period_ns):
            if (command := controller.between(now_ns)) is not None:
                path.append(command.position_m)
        measured = path[-1]
    return verdicts, np.diff(path, axis=0)[:, 1], len(plans)


def test_a_plan_is_due_by_the_clock_where_the_arm_moves_in_one_tick_of_five() -> None:
    verdicts, _, plans = drive_skewed(lambda tick: tick >= 15 and tick % 5 > 0, rate_hz=10.0, T_a=8)
    assert Verdict.HOLD_OLD_PLAN not in verdicts
    assert plans >= 6


def test_commands_between_ticks_skip_no_part_of_an_action_after_a_hold() -> None:
    _, steps, _ = drive_skewed(lambda tick: 15 <= tick < 19, rate_hz=20.0, T_a=14, command_rate_hz=40.0)
    assert (
        steps[20:].max() <= 0.0075
    )  # 5 mm each; a curve that begins at rest is slower first, and faster then
