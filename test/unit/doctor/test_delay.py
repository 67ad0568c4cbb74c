"""Command delay from a step: found in the recorded motion, refused where the arm does not follow."""

from __future__ import annotations

import numpy as np
import pytest

from dp_ros.doctor.delay import Step, StepError, command_delay, judge_delay, plan_step
from dp_ros.doctor.findings import Level
from dp_ros.schema import GateConfig

STEP = Step(step_m=0.02, rise_s=0.4)
COMMANDED_S = np.arange(0.0, 3.0, 0.05)
COMMANDED_M = 0.2 + STEP.offset_m(COMMANDED_S - 0.5)
POSE = np.array([0.0, 0.6, 0.2, 0.0, 1.0, 0.0, 0.0])


def motion(delay_s: float, share: float = 1.0, noise_m: float = 0.0, rate_hz: float = 125.0):
    at_s = np.arange(0.0, 3.0, 1.0 / rate_hz)
    moved_m = share * STEP.offset_m(at_s - 0.5 - delay_s)
    return at_s, 0.3 + moved_m + np.random.default_rng(0).normal(
        scale=noise_m, size=len(at_s)
    ) if noise_m else (0.3 + moved_m)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.12, 0.5])
def test_the_delay_is_found_to_ten_milliseconds_with_noise(delay_s: float) -> None:
    found = command_delay(COMMANDED_S, COMMANDED_M, *motion(delay_s, noise_m=2e-4), rate_hz=20.0)
    assert found is not None
    assert found.follows
    assert found.delay_s == pytest.approx(delay_s, abs=0.01)
    assert found.share == pytest.approx(1.0, abs=0.05)


def test_the_delay_of_a_lagging_arm_includes_its_time_constant() -> None:
    at_s, target = motion(0.05, rate_hz=500.0)
    position = np.full_like(target, target[0])
    for i in range(1, len(position)):
        position[i] = position[i - 1] + (target[i] - position[i - 1]) * (1 / 500) / 0.1
    found = command_delay(COMMANDED_S, COMMANDED_M, at_s, position, rate_hz=20.0)
    assert found is not None
    assert found.delay_s == pytest.approx(0.15, abs=0.03)


def test_an_arm_that_stands_still_or_does_something_else_has_no_delay() -> None:
    at_s, _ = motion(0.0)
    rng = np.random.default_rng(0)
    for moved_m in (
        np.full(len(at_s), 0.3),
        0.3 + rng.normal(scale=0.01, size=len(at_s)),
        motion(0.1, share=0.1)[1],
    ):
        found = command_delay(COMMANDED_S, COMMANDED_M, at_s, moved_m, rate_hz=20.0)
        assert found is None or not found.follows
        (finding,) = judge_delay(found, 0.0, 20.0)
        assert finding.level is Level.ERROR


def test_the_setting_is_compared_to_the_measurement() -> None:
    found = command_delay(COMMANDED_S, COMMANDED_M, *motion(0.2), rate_hz=20.0)
    (far,) = judge_delay(found, 0.0, 20.0)
    assert far.level is Level.WARNING
    assert "200 ms" in far.what
    assert "0.20" in far.remedy
    (near,) = judge_delay(found, 0.2, 20.0)
    assert near.level is Level.OK


def test_a_command_that_never_moved_measures_nothing() -> None:
    assert command_delay(COMMANDED_S, np.full(len(COMMANDED_S), 0.2), *motion(0.1), rate_hz=20.0) is None


def test_the_step_returns_to_its_begin_and_turns_where_there_is_no_room_above() -> None:
    gate = GateConfig(workspace_low_m=(-0.2, 0.4, 0.05), workspace_high_m=(0.2, 0.8, 0.4))
    step = plan_step(POSE, gate, 20.0, 0.02)
    offsets = step.offset_m(np.linspace(-1.0, step.duration_s + 1.0, 2000))
    assert (offsets[0], offsets[-1]) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert offsets.max() == pytest.approx(0.02)
    under_the_top = POSE + np.array([0, 0, 0.19, 0, 0, 0, 0])
    assert plan_step(under_the_top, gate, 20.0, 0.02).step_m == -0.02


def test_the_step_is_slower_than_half_of_the_limits() -> None:
    is_si = "max_speed_m_s" in GateConfig.model_fields
    gate = GateConfig(
        **({"max_speed_m_s": 0.02, "max_acceleration_m_s2": 0.1} if is_si else {"max_step_m": 0.001})
    )
    step = plan_step(POSE, gate, 20.0, 0.02)
    at_s = np.linspace(0.0, step.duration_s, 20_000)
    speed = np.gradient(step.offset_m(at_s), at_s)
    assert np.abs(speed).max() <= 0.5 * 0.02 * 1.001
    if is_si:
        assert np.abs(np.gradient(speed, at_s)).max() <= 0.5 * 0.1 * 1.01


@pytest.mark.parametrize("position", [(0.0, 0.6, 2.0), (np.nan, 0.6, 0.2), (900.0, 0.6, 0.2)])
def test_no_step_begins_outside_the_workspace(position) -> None:
    with pytest.raises(StepError, match="outside the workspace"):
        plan_step(np.array([*position, 0.0, 1.0, 0.0, 0.0]), GateConfig(), 20.0, 0.02)


def test_no_step_where_there_is_no_room() -> None:
    flat = GateConfig(workspace_low_m=(-0.2, 0.4, 0.19), workspace_high_m=(0.2, 0.8, 0.21))
    with pytest.raises(StepError, match="no room"):
        plan_step(POSE, flat, 20.0, 0.02)
