"""Instructions in the control loop: none holds, and a change ends the chunk and asks for another plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.planner import InlinePlanner, PlanRequest, PlanResult
from dp_ros.control.safety import Verdict
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
OPEN, CLOSE = np.eye(8, dtype=np.float32)[:2]
POLICY = PolicyConfig.model_validate({"instruction": {"embedding_dim": 8}})


class Plans:
    """A plan function that keeps its requests."""

    def __init__(self) -> None:
        self.requests: list[PlanRequest] = []

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        self.requests.append(request)
        return np.zeros((POLICY.horizons.T_p, POLICY.action.dim))


class SlowPlanner(InlinePlanner):
    """Answers when it is told to."""

    def __init__(self, plan: Plans) -> None:
        super().__init__(plan)
        self.is_ready = True

    def poll(self) -> PlanResult | None:
        return super().poll() if self.is_ready else None

    @property
    def busy(self) -> bool:
        return not self.is_ready


@pytest.fixture
def tick(make_frame: Callable[..., Frame]) -> Callable[..., PolicyDecision]:
    def run(controller: Controller, number: int) -> PolicyDecision:
        controller.observe(make_frame(number * DT))
        decision = controller.tick(number * DT)
        assert decision is not None
        return decision

    return run


def controller(planner: InlinePlanner, **runtime: Any) -> Controller:
    settings = {"mode": "realtime", "continuity": "switch", **runtime}
    return Controller(POLICY, RuntimeConfig.model_validate(settings), planner)


def test_policy_that_is_told_nothing_holds_and_says_so(tick: Callable[..., PolicyDecision]) -> None:
    plans = Plans()
    control = controller(InlinePlanner(plans))
    decisions = [tick(control, i) for i in range(3)]
    assert {d.verdict for d in decisions} == {Verdict.HOLD_NO_PLAN}
    assert {d.detail for d in decisions} == {"no instruction: this policy is told by a sentence what to do"}
    assert plans.requests == []
    control.instruct(OPEN)
    assert tick(control, 3).verdict is Verdict.PASS
    control.instruct(None)
    assert tick(control, 4).verdict is Verdict.HOLD_NO_PLAN


def test_new_instruction_ends_the_chunk_in_a_hold_and_keeps_the_history(
    tick: Callable[..., PolicyDecision],
) -> None:
    plans = Plans()
    planner = SlowPlanner(plans)
    control = controller(planner)
    control.instruct(OPEN)
    assert [tick(control, i).verdict for i in range(2)] == [Verdict.PASS] * 2
    control.instruct(OPEN.copy())  # the same again changes nothing
    assert tick(control, 2).verdict is Verdict.PASS
    assert len(plans.requests) == 1
    planner.is_ready = False
    control.instruct(CLOSE)
    held = tick(control, 3)
    assert (held.verdict, held.detail) == (Verdict.HOLD_NO_PLAN, "no plan yet for the new instruction")
    planner.is_ready = True
    assert tick(control, 4).verdict is Verdict.PASS
    np.testing.assert_array_equal(plans.requests[-1].instruction, CLOSE)
    assert len({picture[0].tobytes() for picture in plans.requests[-1].images}) == POLICY.horizons.T_o


def test_plan_of_the_old_instruction_is_not_executed(tick: Callable[..., PolicyDecision]) -> None:
    plans = Plans()
    planner = SlowPlanner(plans)
    control = controller(planner)
    control.instruct(OPEN)
    planner.is_ready = False
    assert tick(control, 0).verdict is Verdict.HOLD_NO_PLAN
    control.instruct(CLOSE)
    planner.is_ready = True  # the plan for OPEN arrives
    tick(control, 1)
    assert tick(control, 2).verdict is Verdict.PASS
    np.testing.assert_array_equal(plans.requests[-1].instruction, CLOSE)


def test_instruction_outlives_the_episode(tick: Callable[..., PolicyDecision]) -> None:
    plans = Plans()
    control = controller(InlinePlanner(plans))
    control.instruct(OPEN)
    tick(control, 0)
    control.reset()
    assert tick(control, 100).verdict is Verdict.PASS
    np.testing.assert_array_equal(plans.requests[-1].instruction, OPEN)
