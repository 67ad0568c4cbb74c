"""Pictures unlike those of the training: a warning with hysteresis, and a hold where the gate asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.ood import Alarm, OodWatch
from dp_ros.control.planner import InlinePlanner, Pictures, PlanRequest, run_plan
from dp_ros.control.safety import Verdict
from dp_ros.schema import GateConfig, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
START = 1_000_000_000_000
STRIDE_M = 0.001


@pytest.mark.parametrize(
    ("scores", "on"),
    [
        ([0.5, 1.5, 0.5, 1.5, 0.5], [0, 0, 0, 0, 0]),  # single frames
        ([0.5, 1.5, 1.5, 1.5], [0, 0, 1, 1]),
        ([1.5, 1.5, 0.95, 0.95, 0.95], [0, 1, 1, 1, 1]),  # not far enough below the limit
        ([1.5, 1.5, 0.8, 1.5, 0.8, 0.8], [0, 1, 1, 1, 1, 0]),
        ([np.nan, np.nan, 0.1, 0.1], [0, 1, 1, 0]),
        ([np.inf, np.inf], [0, 1]),
        ([1.0, 1.0, 1.0], [0, 0, 0]),
    ],
)
def test_alarm_has_hysteresis(scores: list[float], on: list[int]) -> None:
    alarm = Alarm()
    seen = []
    for score in scores:
        alarm.see(score, 1.0)
        seen.append(int(alarm.is_on))
    assert seen == on


def test_alarm_without_a_limit_is_never_on_and_ends_where_the_limit_is_removed() -> None:
    alarm = Alarm()
    for _ in range(5):
        alarm.see(9.0, 0.0)
    assert not alarm.is_on
    for limit in (1.0, 1.0):
        alarm.see(9.0, limit)
    assert alarm.is_on
    alarm.see(9.0, 0.0)
    assert not alarm.is_on


def test_warning_names_the_camera_its_score_and_the_setting() -> None:
    watch = OodWatch(("wrist", "shelf"), warning=1.0)
    assert (watch.score, watch.warning) == (None, "")
    for _ in range(2):
        watch.see(np.array([0.4, 1.7]), limit=0.0)
    assert watch.score == 1.7
    assert "camera shelf" in watch.warning
    assert "score 1.70, more than ood_warning 1" in watch.warning
    assert not watch.why_hold(0.0)
    watch.clear()
    assert (watch.score, watch.warning) == (None, "")


def test_camera_whose_score_is_no_number_counts_as_the_most_unusual() -> None:
    watch = OodWatch(("wrist", "shelf"), warning=1.0)
    for _ in range(2):
        watch.see(np.array([5.0, np.nan]), limit=1.0)
    assert "camera shelf" in watch.warning
    assert "camera shelf" in watch.why_hold(1.0)


class Engine:
    """Plans along y; its pictures have the score that a test sets."""

    def __init__(self) -> None:
        self.score: float | None = 0.5
        self.plans = 0

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        self.plans += 1
        chunk = np.zeros((8, 4))
        chunk[:, 1] = STRIDE_M * np.arange(8)
        return chunk

    def ood_scores(self, pictures: Pictures) -> NDArray[np.float64] | None:
        return None if self.score is None else np.array([self.score])


class Arm:
    """An arm that is where it was told to be."""

    def __init__(self, make_frame: Callable[..., Frame], mode: str = "lockstep", **gate: Any) -> None:
        self.engine = Engine()
        runtime = RuntimeConfig(mode=mode, gate=GateConfig(**gate))
        self.controller = Controller(PolicyConfig(), runtime, InlinePlanner(self.engine))
        self._make_frame = make_frame
        self.at_m: tuple[float, ...] = (0.0, 0.5, 0.2)
        self.verdicts: list[Verdict] = []
        self.detail = ""

    def run(self, ticks: int) -> Verdict:
        for _ in range(ticks):
            now_ns = START + len(self.verdicts) * DT
            self.controller.observe(self._make_frame(now_ns, self.at_m))
            decision = self.controller.tick(now_ns)
            assert decision is not None
            self.at_m = tuple(decision.command.position_m)
            self.verdicts.append(decision.verdict)
            self.detail = decision.detail
        return self.verdicts[-1]

    @property
    def warning(self) -> str:
        return self.controller.commander.ood.warning


@pytest.fixture(params=["lockstep", "realtime"])
def arm(make_frame: Callable[..., Frame], request: pytest.FixtureRequest) -> Callable[..., Arm]:
    return lambda **gate: Arm(make_frame, request.param, **gate)


def test_warning_comes_and_goes_and_the_commands_stay_the_same(arm: Callable[..., Arm]) -> None:
    """Off by default: pictures unlike those of the training are only told of."""
    usual, strange = arm(), arm()
    usual.run(20)
    strange.run(20)
    assert not strange.warning
    strange.engine.score = 1.4
    strange.run(12)
    usual.run(12)
    assert "score 1.40" in strange.warning
    strange.engine.score = 0.5
    strange.run(12)
    usual.run(12)
    assert not strange.warning
    assert strange.verdicts == usual.verdicts
    assert strange.at_m == usual.at_m


def test_a_policy_without_scores_is_not_warned_of(arm: Callable[..., Arm]) -> None:
    robot = arm()
    robot.engine.score = None
    robot.run(20)
    assert (robot.controller.commander.ood.score, robot.warning) == (None, "")
    assert Verdict.HOLD_OOD not in robot.verdicts


def test_gate_holds_with_its_own_verdict_and_goes_on_by_itself(arm: Callable[..., Arm]) -> None:
    robot = arm(max_ood_score=1.2)
    assert robot.run(20) is Verdict.PASS
    robot.engine.score = 2.0
    robot.run(12)
    held_m = robot.at_m
    assert robot.run(20) is Verdict.HOLD_OOD
    assert set(robot.verdicts[-20:]) == {Verdict.HOLD_OOD}  # also where the chunk is used up
    assert robot.at_m == held_m
    assert "score 2.00, more than gate.max_ood_score 1.2" in robot.detail
    robot.engine.score = 0.5
    robot.run(12)
    assert robot.run(1) is Verdict.PASS
    steps_m = abs(np.array(robot.at_m) - held_m).max()
    assert 0 < steps_m <= 14 * STRIDE_M


def test_recovery_waits_as_that_of_the_other_watchdogs(arm: Callable[..., Arm]) -> None:
    robot = arm(max_ood_score=1.0, recover_s=0.25)
    robot.run(8)
    robot.engine.score = 2.0
    robot.run(16)
    robot.engine.score = 0.5
    robot.run(25)
    after = robot.verdicts[24:]
    waited = after.count(Verdict.HOLD_RECOVERING)
    assert 15 <= waited <= 20  # ticks of a quarter of a second; the plan before it may be under way
    assert Verdict.HOLD_OOD not in after[after.index(Verdict.HOLD_RECOVERING) :]


def test_limit_without_statistics_holds_because_nothing_can_be_checked(arm: Callable[..., Arm]) -> None:
    robot = arm(max_ood_score=1.0)
    robot.engine.score = None
    assert robot.run(8) is Verdict.HOLD_OOD
    assert "dp_ros ood-stats" in robot.detail


def test_an_emergency_stop_and_a_lost_camera_come_first(make_frame: Callable[..., Frame]) -> None:
    robot = Arm(make_frame, max_ood_score=1.0)
    robot.engine.score = 2.0
    robot.run(12)
    robot.controller.commander.stopped = "by hand"
    assert robot.run(1) is Verdict.HOLD_STOPPED
    stale = Arm(make_frame, "realtime", max_ood_score=1.0)
    stale.engine.score = 2.0
    stale.run(12)
    decision = stale.controller.tick(START + 30 * DT)
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE


def test_a_larger_limit_is_looser_and_none_is_the_loosest() -> None:
    tight, loose, off = (GateConfig(max_ood_score=score) for score in (1.0, 2.0, 0.0))
    assert tight.loosened(loose) == tight.loosened(off) == loose.loosened(off) == ["max_ood_score"]
    assert off.loosened(tight) == loose.loosened(tight) == []


def test_an_error_of_the_score_ends_in_a_hold(make_frame: Callable[..., Frame]) -> None:
    class Broken(Engine):
        def ood_scores(self, pictures: Pictures) -> NDArray[np.float64] | None:
            raise RuntimeError("no memory")

    window = (make_frame(START).images,) * 2
    result = run_plan(Broken(), PlanRequest(window, np.zeros((2, 4)), np.zeros(3), 0, (0,)))
    assert result.chunk is None
    assert result.error == "RuntimeError: no memory"
