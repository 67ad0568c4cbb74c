"""Times of commands: what the node adds to a plan, by its own clock."""

from __future__ import annotations

import numpy as np
import pytest

from dp_ros.control.controller import PolicyDecision
from dp_ros.control.planner import PlanRequest, PlanResult
from dp_ros.control.safety import Command, Verdict
from dp_ros.control.timing import CommandTimer


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def decision(plan: PlanResult | None = None) -> PolicyDecision:
    command = Command(0, np.zeros(3), None, np.array([0.0, 0.0, 0.0, 1.0]))
    return PolicyDecision(command, Verdict.PASS, "", plan, None, 0.0)


def plan_of(stamp_ns: int, finished_s: float, duration_s: float, waited_s: float = 0.0) -> PlanResult:
    request = PlanRequest((), np.zeros((2, 4)), np.zeros(3), stamp_ns, (0,))
    return PlanResult(request, np.zeros((8, 4)), None, duration_s, finished_s, waited_s)


def test_a_command_takes_from_the_due_time_of_its_tick_to_its_publication() -> None:
    clock = Clock()
    timer = CommandTimer(clock)
    timer.begin(7, late_s=0.002)
    clock.now_s += 0.003
    times = timer.end(decision())
    assert (times.late, times.sent) == pytest.approx((0.002, 0.003))
    assert times.overhead == pytest.approx(0.005)
    assert times.plan is None


@pytest.mark.parametrize(("waited_s", "late_s"), [(0.0, 0.0), (0.004, 0.0), (0.0, 0.005)])
def test_the_overhead_of_a_plan_is_what_neither_the_plan_nor_the_next_tick_took(
    waited_s: float, late_s: float
) -> None:
    """Requested at a tick due at 100.000 s, it takes 15 ms, ends at 100.020 s, and is due to be sent at 100.025 s."""
    clock = Clock()
    timer = CommandTimer(clock)
    clock.now_s = 100.0 + 0.001
    timer.begin(1, late_s=0.001)
    timer.end(decision())
    clock.now_s = 100.025 + late_s
    timer.begin(2, late_s)
    clock.now_s += 0.002
    times = timer.end(
        decision(plan_of(1, finished_s=100.020, duration_s=0.015 - waited_s, waited_s=waited_s))
    )
    assert times.request == pytest.approx(0.027 + late_s)
    assert times.plan == pytest.approx(0.015)
    assert times.wait == pytest.approx(0.005)
    assert times.overhead == pytest.approx(
        0.005 + 0.002 + late_s
    )  # 100.000 to 100.005, late, and 2 ms to send it


def test_a_plan_that_ended_after_its_tick_was_due_did_not_wait() -> None:
    clock = Clock()
    timer = CommandTimer(clock)
    timer.begin(1, late_s=0.0)
    clock.now_s = 100.014
    timer.begin(2, late_s=0.0015)
    times = timer.end(decision(plan_of(1, finished_s=100.013, duration_s=0.013)))
    assert times.wait == 0.0
    assert times.overhead == pytest.approx(0.001)


def test_a_plan_requested_before_the_timer_began_has_no_times() -> None:
    timer = CommandTimer(Clock())
    timer.begin(2, late_s=0.0)
    assert timer.end(decision(plan_of(1, 100.0, 0.01))).plan is None
