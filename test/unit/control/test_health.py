"""Health of a policy's inputs: rates, ages, losses, and warnings before the arm holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dp_ros.control.health import WINDOW_S, InputHealth, late_plans
from dp_ros.streams import Sample, Selection

STREAMS = ("camera left", "ee_pose", "gripper")


@pytest.fixture
def health(clock: Any) -> InputHealth:
    return InputHealth(STREAMS, clock)


def selection(now_ns: int, camera_ms: float, others_ms: float = 1.0) -> Selection:
    camera = Sample(now_ns - round(camera_ms * 1e6), np.zeros((2, 2, 3), np.uint8))
    other_ns = now_ns - round(others_ms * 1e6)
    return Selection(now_ns, (camera,), Sample(other_ns, np.zeros(7)), Sample(other_ns, 1.0))


def run(health: InputHealth, clock: Any, seconds: float, camera_ms: float = 20.0) -> None:
    """Ticks at 20 Hz with a camera at 10 Hz."""
    for tick in range(round(20 * seconds)):
        clock.now_s += 0.05
        if tick % 2:
            health.arrive("camera left")
        health.arrive("ee_pose")
        health.tick(selection(10**9, camera_ms))


def test_rates_and_ages_are_those_of_the_last_seconds(health: InputHealth, clock: Any) -> None:
    run(health, clock, 60.0, camera_ms=90.0)
    run(health, clock, 2 * WINDOW_S)
    values = health.values()
    assert float(values["camera left rate_hz"]) == pytest.approx(10.0, abs=0.5)
    assert float(values["ee_pose rate_hz"]) == pytest.approx(20.0, abs=0.5)
    assert values["gripper rate_hz"] == "0.0"
    assert (values["camera left age_ms_p50"], values["camera left age_ms_p99"]) == ("20.0", "20.0")
    assert values["ee_pose age_ms_p50"] == "1.0"
    assert values["ticks_without_frame"].startswith("0 of 1")
    assert health.warnings(0.1) == []


def test_an_age_that_nears_its_limit_is_warned_of(health: InputHealth, clock: Any) -> None:
    run(health, clock, 2 * WINDOW_S, camera_ms=85.0)
    (warning,) = health.warnings(0.1)
    assert warning.startswith("camera left: 85 ms old (p99), and the arm holds at 100")
    assert health.warnings(0.2) == health.warnings(0.0) == []


def test_refused_messages_are_counted_and_warned_of_for_some_seconds(health: InputHealth, clock: Any) -> None:
    run(health, clock, 2.0)
    health.refuse("camera left")
    health.refuse("camera left")
    assert health.warnings(0.1) == [f"camera left: 2 messages in {WINDOW_S:g} s could not be used"]
    run(health, clock, 2 * WINDOW_S)
    assert health.warnings(0.1) == []
    assert health.values()["camera left refused"] == "2"


def test_ticks_without_a_frame_are_warned_of(health: InputHealth, clock: Any) -> None:
    run(health, clock, 2.0)
    for _ in range(2):
        clock.now_s += 0.05
        health.tick(None)
    assert health.values()["ticks_without_frame"] == "2 of 42"
    assert health.warnings(0.1) == ["2 of 42 ticks found no complete, fresh frame"]


def test_before_anything_arrived_nothing_is_judged(health: InputHealth, clock: Any) -> None:
    health.tick(None)
    assert health.warnings(0.1) == []
    values = health.values()
    assert values["camera left age_ms_p50"] == "nan"
    run(health, clock, 2.0)
    health.clear()
    assert health.values()["ticks_without_frame"] == "0 of 0"


def test_plans_that_use_up_their_chunk_are_warned_of() -> None:
    assert late_plans(0.07, 0.1) == ""
    assert late_plans(0.09, 0.1).startswith("plans take 90 ms (p99), and a chunk reaches 100")
