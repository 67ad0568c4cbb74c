"""One tick of the control loop, in lockstep and in real time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller, PolicyDecision
from dp_ros.control.episode import Inherited
from dp_ros.control.planner import (
    InferenceFn,
    InlinePlanner,
    Pictures,
    Planner,
    PlanRequest,
    PlanResult,
    run_plan,
)
from dp_ros.control.safety import Verdict
from dp_ros.poses import angle_rad
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
START = 1_000_000_000_000
HOME_M = (0.0, 0.6, 0.2)
T_O, T_P, T_A = 2, 8, 4
UNWATCHED = {
    "max_distance_m": 0.0,
    "max_frozen_s": 0.0,
}  # the measured arm and its pictures never change here


class LatePlanner:
    """A planner whose moment of answering the test chooses: what a worker's thread does, without the thread."""

    def __init__(self, plan: InferenceFn) -> None:
        self.plan = plan
        self.waiting: PlanRequest | None = None
        self.finished: PlanResult | None = None
        self.requests: list[PlanRequest] = []
        self.offered: list[Pictures] = []

    def request(self, request: PlanRequest) -> None:
        self.waiting = request
        self.requests.append(request)

    def offer(self, pictures: Pictures) -> None:
        self.offered.append(pictures)

    def poll(self) -> PlanResult | None:
        finished, self.finished = self.finished, None
        return finished

    @property
    def busy(self) -> bool:
        return self.waiting is not None

    def finish(self, duration_s: float = 0.0) -> None:
        assert self.waiting is not None
        self.finished = replace(run_plan(self.plan, self.waiting), duration_s=duration_s)
        self.waiting = None


def controller(
    planner: Planner, mode: str = "lockstep", kind: str = "relative", **runtime: Any
) -> Controller:
    horizons = runtime.pop("horizons", {"T_o": T_O, "T_p": T_P, "T_a": T_A})
    encoder = runtime.pop("encoder", {})
    policy = PolicyConfig.model_validate(
        {"horizons": horizons, "action": {"position": kind}, "encoder": encoder}
    )
    gate = {**UNWATCHED, **runtime.pop("gate", {})}
    settings = {"mode": mode, "continuity": "switch", **runtime, "gate": gate}
    return Controller(policy, RuntimeConfig.model_validate(settings), planner)


class Recorder:
    """A plan function that keeps its requests; each plan's actions are told apart by their size."""

    def __init__(self, step_m: float = 0.001) -> None:
        self.requests: list[PlanRequest] = []
        self.step_m = step_m

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        """Moves along x by step, 2 step, 3 step, ... per tick; the gripper counts the actions of the chunk."""
        self.requests.append(request)
        chunk = np.zeros((T_P, 4))
        chunk[:, 0] = self.step_m * len(self.requests) * (np.arange(T_P) - (T_O - 2))
        chunk[:, 3] = np.arange(T_P) / 10
        return chunk


class Steady(Recorder):
    """The same motion in every plan."""

    def __call__(self, request: PlanRequest) -> NDArray[np.float64]:
        chunk = super().__call__(request)
        chunk[:, 0] /= len(self.requests)
        return chunk


def at(ticks: float) -> int:
    return START + round(ticks * DT)


@pytest.fixture
def drive(make_frame: Callable[..., Frame]) -> Callable[..., list[PolicyDecision]]:
    """Observe and tick, once for each time; every tick must decide."""

    def drive(c: Controller, *ticks: float, position_m: tuple[float, ...] = HOME_M) -> list[PolicyDecision]:
        decisions = []
        for tick in ticks:
            c.observe(make_frame(at(tick), position_m))
            decision = c.tick(at(tick))
            assert decision is not None
            decisions.append(decision)
        return decisions

    return drive


def x_m(decisions: list[PolicyDecision]) -> list[float]:
    return [float(d.command.position_m[0]) for d in decisions]


# ---- lockstep ------------------------------------------------------------------------------------------


def test_lockstep_executes_the_executed_part_of_each_plan_in_order(drive: Callable[..., Any]) -> None:
    """Actions T_o - 1 to T_o - 1 + T_a of every plan, and a new plan exactly every T_a ticks."""
    plan = Recorder()
    decisions = drive(controller(InlinePlanner(plan)), *range(10))
    grippers = [round(d.command.gripper * 10) for d in decisions]
    assert grippers == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [request.stamp_ns for request in plan.requests] == [at(0), at(4), at(8)]
    assert [d.command.stamp_ns for d in decisions] == [at(t) for t in range(10)]
    assert {d.verdict for d in decisions} == {Verdict.PASS}
    assert {d.detail for d in decisions} == {""}
    assert [d.plan_s is not None for d in decisions] == [t % T_A == 0 for t in range(10)]
    expected = np.cumsum([0.001] * 4 + [0.002] * 4 + [0.003] * 2)
    np.testing.assert_allclose(x_m(decisions), expected, atol=1e-12)


def test_relative_plans_start_from_the_last_command_not_from_the_measured_pose(
    drive: Callable[..., Any],
) -> None:
    plan = Recorder()
    decisions = drive(controller(InlinePlanner(plan)), *range(9), position_m=(0.05, 0.6, 0.2))
    np.testing.assert_array_equal(plan.requests[0].reference_m, [0.05, 0.6, 0.2])  # the start: measured
    for request, tick in zip(plan.requests[1:], (4, 8), strict=True):
        np.testing.assert_array_equal(request.reference_m, decisions[tick - 1].command.position_m)


@pytest.mark.parametrize("kind", ["absolute", "relative", "delta"])
def test_every_kind_is_published_as_absolute_positions(drive: Callable[..., Any], kind: str) -> None:
    """Constant speed along y, said in three ways."""

    def plan(request: PlanRequest) -> NDArray[np.float64]:
        chunk = np.zeros((T_P, 4))
        ticks = np.arange(T_P) - (T_O - 1) + 1.0
        chunk[:, 1] = {
            "absolute": request.reference_m[1] + 0.01 * ticks,
            "relative": 0.01 * ticks,
            "delta": 0.01,
        }[kind]
        chunk[:, [0, 2]] = request.reference_m[[0, 2]] if kind == "absolute" else 0.0
        return chunk

    decisions = drive(controller(InlinePlanner(plan), kind=kind), *range(7))
    expected = np.tile(HOME_M, (7, 1)) + np.outer(np.arange(1, 8), [0, 0.01, 0])
    np.testing.assert_allclose([d.command.position_m for d in decisions], expected, atol=1e-12)


def test_request_holds_the_window_and_its_state(drive: Callable[..., Any], make_frame: Callable) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan))
    drive(c, 0, 1, 2, 3)
    c.observe(make_frame(at(4), (0.1, 0.2, 0.3), gripper=0.4))
    assert c.tick(at(4)) is not None
    first, second = plan.requests
    before, after = (np.concatenate(request.images) for request in (first, second))  # of one camera
    assert before.shape == (T_O, 2, 2, 3)
    np.testing.assert_array_equal(before[0], before[1])  # the first frame, repeated
    np.testing.assert_array_equal(after[:, 0, 0, 0], [at(3) % 251, at(4) % 251])
    np.testing.assert_array_equal(second.state, [[*HOME_M, 1.0], [0.1, 0.2, 0.3, 0.4]])


def test_seeds_of_the_noise_follow_from_the_policy_seed_and_the_number_of_the_plan(
    drive: Callable[..., Any],
) -> None:
    def seeds(policy_seed: int, first_tick: int) -> list[tuple[int, ...]]:
        plan = Recorder()
        c = controller(InlinePlanner(plan), policy_seed=policy_seed)
        drive(c, *range(first_tick, first_tick + 9))
        c.reset()
        drive(c, *range(first_tick, first_tick + 5))
        return [request.seed for request in plan.requests]

    once = seeds(7, 0)
    assert once == seeds(7, 1000)
    assert len(set(once[:3])) == 3
    assert once[3:] == once[:2]  # each episode begins with the same noise
    assert not set(once) & set(seeds(8, 0))


def test_lockstep_waits_for_the_plan_of_its_frame(drive: Callable[..., Any], make_frame: Callable) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner)
    c.observe(make_frame(at(0)))
    assert c.tick(at(0)) is None
    assert c.tick(at(0)) is None
    planner.finish()
    decision = c.tick(at(0))
    assert decision is not None
    assert decision.verdict is Verdict.PASS
    assert decision.command.gripper == pytest.approx(0.1)
    drive(c, 1, 2, 3)
    c.observe(make_frame(at(4)))
    assert c.tick(at(4)) is None
    assert len(planner.requests) == 2


def test_lockstep_never_answers_with_the_old_plan_while_the_new_one_is_finishing(
    drive: Callable[..., Any], make_frame: Callable
) -> None:
    """A worker may finish between two looks at it; the tail of the old plan is then no answer, nor is a hold."""

    class Hasty(LatePlanner):
        """Looks idle as soon as it was asked; its plan is there at the second poll."""

        def poll(self) -> PlanResult | None:
            finished = super().poll()
            if self.waiting is not None:
                self.finish()
            return finished

        @property
        def busy(self) -> bool:
            return False

    c = controller(Hasty(Recorder()))
    grippers = []
    for tick in range(10):
        c.observe(make_frame(at(tick)))
        decision = c.tick(at(tick)) or c.tick(at(tick))
        assert decision is not None
        grippers.append(round(decision.command.gripper * 10))
    assert grippers == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]


def test_failed_plan_holds_and_says_why_and_the_next_frame_tries_again(drive: Callable[..., Any]) -> None:
    plan = Recorder()

    def fragile(request: PlanRequest) -> NDArray[np.float64]:
        if request.stamp_ns == at(4):
            raise RuntimeError("out of memory")
        return plan(request)

    *_, before, failed, after = drive(controller(InlinePlanner(fragile)), *range(6))
    assert failed.verdict is Verdict.HOLD_NO_PLAN
    assert failed.detail == "the plan failed: RuntimeError: out of memory"
    np.testing.assert_array_equal(failed.command.as_array(), before.command.as_array())
    assert after.verdict is Verdict.PASS


@pytest.mark.parametrize("shape", [(T_P, 3), (T_P - 1, 4), (1, T_P, 4), (4,)])
def test_plan_of_another_shape_holds_and_says_so(drive: Callable[..., Any], shape: tuple[int, ...]) -> None:
    (decision,) = drive(controller(InlinePlanner(lambda request: np.zeros(shape))), 0)
    assert decision.verdict is Verdict.HOLD_NO_PLAN
    assert str(shape) in decision.detail


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_plan_that_is_not_finite_holds(drive: Callable[..., Any], value: float) -> None:
    (decision,) = drive(controller(InlinePlanner(lambda request: np.full((T_P, 4), value))), 0)
    assert decision.verdict is Verdict.HOLD_NOT_FINITE
    assert str(value) in decision.detail
    assert "not finite" in decision.detail
    np.testing.assert_array_equal(decision.command.position_m, HOME_M)


def test_gate_limits_what_the_plan_asks_for(drive: Callable[..., Any]) -> None:
    c = controller(InlinePlanner(Recorder(step_m=0.5)), gate={"max_speed_m_s": 0.8})
    decisions = drive(c, *range(4))
    assert {d.verdict for d in decisions} == {Verdict.LIMITED_SPEED}
    np.testing.assert_allclose(x_m(decisions), [0.01, 0.02, 0.03, 0.04], atol=1e-12)


# ---- robots that obey late -----------------------------------------------------------------------------

GOAL_M = np.array([0.08, 0.65, 0.15])
STRIDE_M = 0.004


def towards_goal(request: PlanRequest) -> NDArray[np.float64]:
    """A plan from what is seen: straight to the goal, a stride a tick, and stay there."""
    return stride_towards_goal(request, T_P)


def stride_towards_goal(request: PlanRequest, T_p: int) -> NDArray[np.float64]:
    seen_m = request.state[-1, :3]
    ahead = np.clip(np.arange(T_p) - (T_O - 2), 0, None)[:, None] * STRIDE_M
    way = GOAL_M - seen_m
    length = max(float(np.linalg.norm(way)), 1e-12)
    return np.append(way * np.minimum(ahead / length, 1.0), ahead, axis=1)


class Robot:
    """Obeys `delay` ticks late: measured is where it was told to be so many ticks before the last command."""

    def __init__(
        self, make_frame: Callable, delay: int, latency: int = 0, mode: str = "lockstep", **runtime: Any
    ) -> None:
        self.make_frame, self.delay, self.latency = make_frame, delay, latency
        self.planner = LatePlanner(towards_goal)
        planner = self.planner if latency else InlinePlanner(towards_goal)
        self.controller = controller(planner, mode, command_delay_s=delay * DT / 1e9, **runtime)
        self.commands = [np.array(HOME_M)] * (delay + 1)
        self.grippers: list[float] = []
        self._asked: tuple[PlanRequest | None, int] = (None, 0)

    def tick(self, tick: float, covered: bool = False, jitter_ns: int = 0) -> None:
        """Observe, and be told; a plan comes `latency` ticks after it was asked for."""
        now_ns = at(tick) + jitter_ns
        request, asked = self._asked
        if request is not None and request is self.planner.waiting and tick - asked >= self.latency:
            self.planner.finish(duration_s=self.latency * DT / 1e9)
        measured_m = tuple(self.commands[-1 - self.delay])
        self.controller.observe(self.make_frame(now_ns, measured_m, **({"images": RED} if covered else {})))
        decision = self.controller.tick(now_ns)
        if self.planner.waiting is not self._asked[0]:
            self._asked = (self.planner.waiting, round(tick))
        self.commands.append(self.commands[-1] if decision is None else decision.command.position_m)
        self.grippers.append(0.0 if decision is None else decision.command.gripper)

    @property
    def steps_m(self) -> NDArray[np.float64]:
        """Of each command, towards the goal."""
        way = (GOAL_M - HOME_M) / np.linalg.norm(GOAL_M - HOME_M)
        return np.diff(self.commands[self.delay :], axis=0) @ way


@pytest.mark.parametrize("delay", [1, 3, 6])
def test_known_delay_leaves_the_commands_those_of_a_prompt_robot(make_frame: Callable, delay: int) -> None:
    prompt, known, unknown = (Robot(make_frame, d) for d in (0, delay, delay))
    unknown.controller = controller(InlinePlanner(towards_goal))
    for robot in (prompt, known, unknown):
        for tick in range(60):
            robot.tick(tick)
    np.testing.assert_allclose(prompt.commands[-1], GOAL_M, atol=1e-12)
    np.testing.assert_allclose(known.commands[delay:], prompt.commands, atol=1e-12)
    beyond_m = np.cumsum(unknown.steps_m).max() - np.linalg.norm(GOAL_M - HOME_M)
    assert beyond_m > delay * STRIDE_M * 0.9  # what it does about a delay that it is not told of


@pytest.mark.parametrize("delay", [0, 1, 3, 6])
@pytest.mark.parametrize("covered", [range(0), range(8, 9), range(3, 24), range(8, 60, 7)], ids=str)
@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_holds_and_delays_lead_to_no_leap_and_no_way_back(
    make_frame: Callable, mode: str, covered: range, delay: int
) -> None:
    """By the clock alone, a plan made after a hold would begin as many strides ahead as the delay has ticks."""
    robot = Robot(make_frame, delay, mode=mode)
    for tick in range(200):
        robot.tick(tick, covered=tick in covered)
    assert robot.steps_m.max() < 1.01 * STRIDE_M
    assert robot.steps_m.min() > -1e-9
    np.testing.assert_allclose(robot.commands[-1], GOAL_M, atol=1e-3)


@pytest.mark.parametrize(
    ("delay", "latency"), [(0, 1), (0, 3), (0, 5), (1, 1), (1, 3), (3, 1), (3, 2), (5, 1)]
)
def test_slow_plans_lead_to_no_leap_and_no_way_back(make_frame: Callable, delay: int, latency: int) -> None:
    """The arm holds while its first plan is made, and goes on along the old one while the next is."""
    robot = Robot(make_frame, delay, latency, "realtime")
    jitter = np.random.default_rng(0)
    for tick in range(300):
        robot.tick(tick, jitter_ns=int(jitter.integers(-1_000_000, 1_000_000)))
    assert robot.steps_m.max() < 1.3 * STRIDE_M  # to the nearest action of the next plan
    assert robot.steps_m.min() > -0.3 * STRIDE_M
    np.testing.assert_allclose(robot.commands[-1], GOAL_M, atol=1e-3)


@pytest.mark.parametrize("first", range(20, 26))
@pytest.mark.parametrize("missed", [1, 2, 3])
def test_missed_ticks_stop_the_arm_once(make_frame: Callable, first: int, missed: int) -> None:
    """The plan in use goes by the clock, so what was missed of it is done at once; the next must know."""
    robot = Robot(make_frame, 0, 3, "realtime")
    for tick in range(120):
        if first <= tick < first + missed:
            robot.commands.append(robot.commands[-1])
        else:
            robot.tick(tick)
    assert robot.steps_m.min() > -1e-9
    assert robot.steps_m.max() < (1.01 + missed) * STRIDE_M
    under_way = np.cumsum(robot.steps_m) < np.linalg.norm(GOAL_M - HOME_M) - 1e-6
    stops = (robot.steps_m < STRIDE_M / 2) & under_way
    assert stops[10:].sum() == missed  # before that it holds for its first plan
    np.testing.assert_allclose(robot.commands[-1], GOAL_M, atol=1e-3)


@pytest.mark.parametrize(
    ("mode", "delay", "latency"),
    [("lockstep", 3, 0), ("lockstep", 6, 0), ("realtime", 0, 3), ("realtime", 2, 2)],
)
def test_plans_that_differ_by_millimetres_are_gone_through_in_order(
    make_frame: Callable, mode: str, delay: int, latency: int
) -> None:
    """A hand that closes on the spot, by plans that agree on when and not quite on where: it never opens again."""

    def closing(request: PlanRequest) -> NDArray[np.float64]:
        ticks = round((request.stamp_ns - START) / DT) - delay - (T_O - 1) + np.arange(T_P)
        shake_m = np.random.default_rng(request.seed).normal(0.0, 1e-3, (T_P, 3))
        return np.append(shake_m, ticks[:, None] / 100, axis=1)

    robot = Robot(make_frame, delay, latency, mode)
    robot.planner.plan = closing
    if not latency:
        robot.controller = controller(InlinePlanner(closing), mode, command_delay_s=delay * DT / 1e9)
    for tick in range(60):
        robot.tick(tick)
    closed = np.round(100 * np.array(robot.grippers[20:]))
    assert (np.diff(closed) >= 0).all()
    assert closed[-1] - closed[0] == len(closed) - 1  # a tick of the plan at every tick


@pytest.mark.parametrize(("delay", "apart"), [(0, 4), (2, 4), (3, 4), (4, 3), (6, 1)])
def test_plans_are_asked_for_when_their_actions_are_used_up(
    make_frame: Callable, delay: int, apart: int
) -> None:
    """T_a ticks apart, or as many as actions are left behind those that are under way."""
    asked: list[int] = []

    def plan(request: PlanRequest) -> NDArray[np.float64]:
        asked.append(round((request.stamp_ns - START) / DT))
        return towards_goal(request)

    robot = Robot(make_frame, delay)
    robot.controller = controller(InlinePlanner(plan), command_delay_s=delay * DT / 1e9)
    for tick in range(40):
        robot.tick(tick)
    assert set(np.diff([tick for tick in asked if tick > 10])) == {apart}


def test_delay_counts_in_whole_ticks(make_frame: Callable) -> None:
    robot = Robot(make_frame, 3)
    robot.controller = controller(InlinePlanner(towards_goal), command_delay_s=2.6 * DT / 1e9)
    for tick in range(60):
        robot.tick(tick)
    np.testing.assert_allclose(robot.steps_m[:20], STRIDE_M, atol=1e-12)


def test_arm_that_settles_holds_again_when_no_frame_follows(make_frame: Callable) -> None:
    """Nothing is said while an episode may begin at any moment; cameras that die then are stale as ever."""
    robot = Robot(make_frame, 6, mode="realtime")
    for tick in range(20):
        robot.tick(tick)
    told_m = robot.commands[-1]
    assert not robot.controller.observe(make_frame(at(100), HOME_M))
    assert robot.controller.tick(at(100)) is None
    decision = robot.controller.tick(at(106))
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE
    np.testing.assert_array_equal(decision.command.position_m, told_m)


@pytest.mark.parametrize("how", ["reset", "clock"])
def test_episode_does_not_begin_while_commands_are_under_way(make_frame: Callable, how: str) -> None:
    """It would begin where the arm is measured, and take it back from where it was told to be."""
    robot = Robot(make_frame, 6, mode="realtime", gate={"max_speed_m_s": 0.4})
    for tick in range(20):
        robot.tick(tick)
    if how == "reset":
        robot.controller.reset()
    for tick in range(18 if how == "clock" else 20, 70):
        robot.tick(tick)
    assert robot.steps_m.min() > -1e-9
    assert robot.steps_m.max() < 1.01 * STRIDE_M
    np.testing.assert_allclose(robot.commands[-1], GOAL_M, atol=1e-3)


def test_delay_beyond_what_the_policy_plans_is_refused_in_one_line() -> None:
    controller(InlinePlanner(Recorder()), command_delay_s=6 * DT / 1e9)
    with pytest.raises(
        ConfigError, match=r"command_delay_s 0\.0875 is 7\.0 ticks.*plans reach 6 ahead.*at most 0\.075"
    ):
        controller(InlinePlanner(Recorder()), command_delay_s=7 * DT / 1e9)


# ---- covered cameras -----------------------------------------------------------------------------------

RED = (np.full((2, 2, 3), (200, 20, 20), dtype=np.uint8),)  # a finger before the lens


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_a_covered_camera_is_a_lost_frame_and_soon_a_hold_that_names_it(
    make_frame: Callable, mode: str
) -> None:
    plan = Steady()
    c = controller(InlinePlanner(plan), mode)
    decisions = []
    for tick in range(40):
        covered = 10 <= tick < 30
        assert c.observe(make_frame(at(tick), **({"images": RED} if covered else {})))
        decision = c.tick(at(tick))
        assert decision is not None
        decisions.append(decision)
    assert not any((request.images[0] == RED[0]).all(axis=(1, 2, 3)).any() for request in plan.requests)
    holds = [d for d in decisions if d.verdict.holds]
    # The plan of frame 9 reaches up to tick 15.
    assert [d.command.stamp_ns for d in holds][:14] == [at(t) for t in range(16, 30)]
    assert {d.verdict for d in decisions[20:30]} == {Verdict.HOLD_STALE}
    assert all(d.detail.startswith("camera gripperPOV shows nothing") for d in decisions[16:30])
    assert {d.verdict for d in decisions[32:]} == {Verdict.PASS}


def test_first_episode_does_not_begin_with_a_covered_camera(make_frame: Callable) -> None:
    c = controller(InlinePlanner(Recorder()))
    for tick in range(3):
        assert not c.observe(make_frame(at(tick), images=RED))
        assert c.tick(at(tick)) is None
        assert c.refused.startswith("camera gripperPOV shows nothing")
    assert c.observe(make_frame(at(3)))
    assert c.refused == ""
    assert c.tick(at(3)) is not None


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_later_episode_that_begins_covered_holds_where_the_arm_is_measured(
    drive: Callable[..., Any], make_frame: Callable, mode: str
) -> None:
    """And not where the episode before it had told it to be: a simulator may have put the arm elsewhere."""
    plan, there_m = Recorder(), (0.1, 0.7, 0.3)
    c = controller(InlinePlanner(plan), mode)
    drive(c, *range(3))
    for tick in range(3, 100) if mode == "realtime" else ():
        c.tick(at(tick))  # nothing is published after max_pose_age_s
    for tick in (100, 101, 102):
        assert c.observe(make_frame(at(tick), there_m if tick == 100 else (0.1, 0.7, 0.29), images=RED))
        decision = c.tick(at(tick))
        assert decision is not None
        assert decision.verdict is Verdict.HOLD_STALE
        np.testing.assert_array_equal(decision.command.position_m, there_m)
    assert not c.observe(make_frame(at(98)))  # of before it began
    decisions = drive(c, 103, 104, position_m=(0.1, 0.7, 0.29))
    assert decisions[-1].verdict is Verdict.PASS
    np.testing.assert_array_equal(plan.requests[-1].reference_m, there_m)  # the hold, as in any episode


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_a_cover_however_long_does_not_end_the_episode(
    drive: Callable[..., Any], make_frame: Callable, mode: str
) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan), mode)
    drive(c, *range(4))
    for tick in range(4, 100):  # longer than episode_gap_s
        assert c.observe(make_frame(at(tick), images=RED))
        held = c.tick(at(tick))
    assert held is not None
    assert held.verdict is Verdict.HOLD_STALE
    decisions = drive(c, 100, 101, position_m=(0.1, 0.7, 0.3))  # sagged, say
    assert {d.command.gripper for d in decisions[:1]} == {held.command.gripper}
    np.testing.assert_array_equal(plan.requests[-1].reference_m, held.command.position_m)
    assert plan.requests[-1].seed != plan.requests[0].seed
    assert decisions[-1].verdict is Verdict.PASS


def test_late_frames_change_nothing(drive: Callable[..., Any], make_frame: Callable) -> None:
    c = controller(InlinePlanner(Recorder()))
    drive(c, *range(100))
    assert not c.observe(make_frame(at(61)))
    assert not c.observe(make_frame(at(62), images=RED))
    assert c.observe(make_frame(at(102), images=RED))  # of this episode, though far from the late one
    assert not c.observe(make_frame(at(101), images=RED))
    assert c.refused == ""
    assert c.tick(at(102)) is not None


def test_clock_that_goes_back_under_a_cover_does_not_end_the_hold(make_frame: Callable) -> None:
    c = controller(InlinePlanner(towards_goal), "realtime")
    for tick in range(30):
        c.observe(make_frame(at(tick), **({"images": RED} if tick >= 6 else {})))
        held = c.tick(at(tick))
    assert held is not None
    for tick in range(9, 20):
        decision = c.tick(at(tick))
        assert decision is not None
        assert decision.verdict is Verdict.HOLD_STALE
        np.testing.assert_array_equal(decision.command.position_m, held.command.position_m)


def test_a_covered_camera_is_found_between_the_black_sides_of_its_padded_pictures(
    make_frame: Callable,
) -> None:
    plan = Steady()
    padded = np.zeros((6, 4, 3), dtype=np.uint8)
    padded[1:5] = RED[0][0, 0]
    for fit, covered in (("same", False), ("pad", True)):
        c = controller(InlinePlanner(plan), encoder={"fit": fit})
        c.observe(make_frame(at(0), images=(padded,)))
        assert (c.tick(at(0)) is None) is covered
        assert ("shows nothing" in c.refused) is covered


def test_pictures_of_one_colour_are_taken_where_min_contrast_is_0(make_frame: Callable) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan), min_contrast=0.0)
    assert c.observe(make_frame(at(0), images=RED))
    assert c.tick(at(0)) is not None
    np.testing.assert_array_equal(np.concatenate(plan.requests[0].images), [*RED, *RED])


# ---- episodes ------------------------------------------------------------------------------------------


def test_before_the_first_frame_there_is_nothing_to_say() -> None:
    c = controller(InlinePlanner(Recorder()))
    assert c.tick(at(0)) is None
    assert c.hold(at(0)) is None


def test_a_new_episode_starts_from_where_the_arm_is_measured(drive: Callable[..., Any]) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan))
    drive(c, *range(3))
    drive(c, 3 + 0.6e9 / DT, position_m=(0.1, 0.7, 0.3))  # longer than episode_gap_s
    np.testing.assert_array_equal(plan.requests[-1].reference_m, [0.1, 0.7, 0.3])
    assert plan.requests[-1].seed == plan.requests[0].seed
    np.testing.assert_array_equal(plan.requests[-1].state[:, :3], [[0.1, 0.7, 0.3]] * T_O)


def test_reset_forgets_frames_plan_and_commands(drive: Callable[..., Any]) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan))
    drive(c, *range(3))
    c.reset()
    assert c.tick(at(3)) is None
    drive(c, 3, position_m=(0.1, 0.7, 0.3))
    np.testing.assert_array_equal(plan.requests[-1].reference_m, [0.1, 0.7, 0.3])


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_plan_asked_for_in_an_episode_that_is_over_is_ignored(make_frame: Callable, mode: str) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner, mode)
    c.observe(make_frame(at(0)))
    c.tick(at(0))
    c.reset()
    c.observe(make_frame(at(0), (0.1, 0.7, 0.3)))  # the simulator's time begins anew: the same stamp
    c.tick(at(0))
    planner.finish()
    decision = c.tick(at(0))
    if decision is not None:
        assert decision.verdict is Verdict.HOLD_NO_PLAN
        assert decision.chunk is None
    assert len(planner.requests) == 2  # the new episode has asked for its own
    planner.finish()
    decision = c.tick(at(0))
    assert decision is not None
    assert decision.verdict is Verdict.PASS
    np.testing.assert_array_equal(planner.requests[1].reference_m, [0.1, 0.7, 0.3])


def test_old_plan_that_arrives_after_the_new_question_is_no_answer_to_it(make_frame: Callable) -> None:
    """The same stamps in both episodes, and a worker that finishes just between two looks at it."""

    class Straggler(LatePlanner):
        """Answers the first request only after the second was asked, and never looks busy."""

        def request(self, request: PlanRequest) -> None:
            super().request(request)
            if len(self.requests) == 2:
                self.finished = replace(run_plan(self.plan, self.requests[0]), duration_s=0.0)

        @property
        def busy(self) -> bool:
            return False

    planner = Straggler(Recorder())
    c = controller(planner, "realtime")
    c.observe(make_frame(at(0)))
    c.tick(at(0))
    c.reset()
    c.observe(make_frame(at(0), (0.1, 0.7, 0.3)))
    decision = c.tick(at(0))
    assert decision is not None
    assert len(planner.requests) == 2
    assert decision.verdict is Verdict.HOLD_NO_PLAN
    np.testing.assert_array_equal(decision.command.position_m, [0.1, 0.7, 0.3])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frame_without_a_finite_pose_moves_nothing(
    drive: Callable[..., Any], make_frame: Callable, value: float
) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime")
    c.observe(make_frame(at(0), (value, 0.6, 0.2)))
    assert c.tick(at(0)) is None
    *_, last = drive(c, 1, 2)
    c.observe(make_frame(at(20), (value, 0.6, 0.2)))
    decision = c.tick(at(20))
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE
    np.testing.assert_array_equal(decision.command.position_m, last.command.position_m)


@pytest.mark.parametrize("quat", [(0.0, 0.0, 0.0, 0.0), (0.0, 1.1, 0.0, 0.0), (np.nan, 1.0, 0.0, 0.0)])
def test_frame_without_a_valid_orientation_is_not_taken(
    make_frame: Callable, quat: tuple[float, ...]
) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime")
    assert not c.observe(make_frame(at(0), orientation=quat))
    assert c.tick(at(0)) is None


def tilted(degrees: float) -> tuple[float, ...]:
    """A tool turned about x."""
    half_rad = np.radians(degrees) / 2
    return (float(np.sin(half_rad)), 0.0, 0.0, float(np.cos(half_rad)))


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
@pytest.mark.parametrize("tilt_deg", [0, 30, 180])
def test_tilted_tool_keeps_its_orientation_from_activation_to_the_end(
    make_frame: Callable, mode: str, tilt_deg: float
) -> None:
    """The largest turn ever commanded is 0, in moves, in holds and in the last command."""
    c = controller(InlinePlanner(Recorder()), mode)
    commands = []
    for tick in (*range(20), *range(120, 140)):  # the second part is an episode of its own
        c.observe(make_frame(at(tick), orientation=tilted(tilt_deg)))
        commands.append(c.tick(at(tick)))
    if mode == "realtime":
        commands += [c.tick(at(tick)) for tick in range(140, 160)]  # the cameras are silent
    turns = [angle_rad(decision.command.orientation, tilted(tilt_deg)) for decision in commands if decision]
    last = c.hold(at(160))
    assert last is not None
    assert len(turns) == len(commands)
    assert max([*turns, angle_rad(last.orientation, tilted(tilt_deg))]) == 0.0


def test_each_episode_keeps_the_orientation_of_the_frame_that_began_it(make_frame: Callable) -> None:
    c = controller(InlinePlanner(Steady()), "realtime")
    turns = []
    for tick, tilt_deg in ((0, 10), (1, 12), (2, 8), (100, 200), (101, 195)):
        for silent in range(3, tick) if tick == 100 else ():
            c.tick(at(silent))
        c.observe(make_frame(at(tick), orientation=tilted(tilt_deg)))
        decision = c.tick(at(tick))
        assert decision is not None
        assert not decision.verdict.holds
        turns.append(angle_rad(decision.command.orientation, tilted(10 if tick < 100 else 200)))
    assert max(turns) == 0.0


def test_while_the_tool_is_measured_far_from_its_orientation_nothing_is_published(
    make_frame: Callable,
) -> None:
    """Neither is a tool that was turned by hand pulled back, nor does a wrist follow a wrong measurement."""
    c = controller(InlinePlanner(Steady()), "realtime")
    for tick in range(3):
        c.observe(make_frame(at(tick)))
        moving = c.tick(at(tick))
    turned = tilted(90)
    c.observe(make_frame(at(3), orientation=turned))
    held = c.tick(at(3))
    assert moving is not None
    assert held is not None
    assert (held.verdict, held.is_silent) == (Verdict.HOLD_TURNED, True)
    assert "gate.max_turn_rad 0.5" in held.detail
    c.observe(make_frame(at(4), orientation=turned))
    assert c.hold(at(4)) is None
    c.observe(make_frame(at(5)))  # turned back by hand
    again = c.tick(at(5))
    assert again is not None
    assert not again.verdict.holds
    assert not again.is_silent
    step_m = float(np.linalg.norm(again.command.position_m - moving.command.position_m))
    assert step_m <= 1.001 * c.commander.config.max_speed_m_s * DT / 1e9


def test_in_lockstep_a_turned_tool_is_held_in_the_orientation_of_the_episode(make_frame: Callable) -> None:
    c = controller(InlinePlanner(Steady()), "lockstep")
    c.observe(make_frame(at(0)))
    c.tick(at(0))
    c.observe(make_frame(at(1), orientation=tilted(90)))
    held = c.tick(at(1))
    assert held is not None
    assert (held.verdict, held.is_silent) == (Verdict.HOLD_TURNED, False)
    assert angle_rad(held.command.orientation, make_frame(at(0)).ee_orientation) == 0.0


def test_gripper_is_not_commanded_until_a_plan_commands_it(make_frame: Callable) -> None:
    """Neither half closed nor dropped: what the hand does is left to it while the first plan is computed."""
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    for tick in range(3):
        c.observe(make_frame(at(tick)))
        decision = c.tick(at(tick))
        assert decision is not None
        assert (decision.verdict, decision.command.gripper) == (Verdict.HOLD_NO_PLAN, None)
    planner.finish()
    c.observe(make_frame(at(3)))
    decision = c.tick(at(3))
    assert decision is not None
    assert not decision.verdict.holds
    assert decision.command.gripper == pytest.approx(0.1)


def test_frame_says_whether_it_was_taken(make_frame: Callable[..., Frame]) -> None:
    c = controller(InlinePlanner(Recorder()))
    ticks = [0, 1, 1, 0.5, 2]
    assert [c.observe(make_frame(at(t))) for t in ticks] == [True, True, False, False, True]
    assert c.observe(make_frame(at(3), (np.nan, 0.6, 0.2))) is False


def test_episode_does_not_begin_with_the_arm_outside_the_workspace(
    drive: Callable[..., Any], make_frame: Callable[..., Frame]
) -> None:
    """Millimetres taken for metres: to hold there would be a command to fly."""
    c = controller(InlinePlanner(Recorder()), "realtime")
    assert c.observe(make_frame(at(0), (0.0, 600.0, 200.0))) is False
    assert c.tick(at(0)) is None
    assert c.hold(at(0)) is None
    assert "measured at (0, 600, 200) m, outside the workspace" in c.refused
    (decision,) = drive(c, 1)
    assert decision.verdict is Verdict.PASS
    assert c.refused == ""


def test_episode_that_cannot_begin_after_a_pause_leaves_the_arm_where_it_is(
    drive: Callable[..., Any], make_frame: Callable[..., Frame]
) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime")
    *_, last = drive(c, 0, 1)
    assert c.observe(make_frame(at(100), (0.0, 600.0, 200.0))) is False
    decision = c.tick(at(100))
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE
    assert "outside the workspace" in decision.detail
    np.testing.assert_array_equal(decision.command.as_array(), last.command.as_array())


@pytest.mark.parametrize(("mode", "gripper"), [("realtime", 0.2), ("lockstep", None)])
def test_pause_of_the_cameras_keeps_the_gripper_and_a_new_simulated_episode_leaves_it_uncommanded(
    drive: Callable[..., Any], mode: str, gripper: float | None
) -> None:
    def fails_later(request: PlanRequest) -> NDArray[np.float64]:
        if request.stamp_ns > at(50):
            raise RuntimeError("no plan, so that the hold shows")
        return Recorder()(request)

    c = controller(InlinePlanner(fails_later), mode)
    *_, last = drive(c, 0, 1)
    assert last.command.gripper == pytest.approx(0.2)
    (held,) = drive(c, 100)
    assert held.verdict is Verdict.HOLD_NO_PLAN
    assert held.command.gripper == (None if gripper is None else pytest.approx(gripper))


def test_time_that_goes_back_holds_until_frames_of_the_new_time_begin_an_episode(
    drive: Callable[..., Any],
) -> None:
    plan = Recorder()
    c = controller(InlinePlanner(plan), "realtime")
    *_, last = drive(c, 100, 101)
    decision = c.tick(at(60))  # less than the gap that begins an episode
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE
    assert decision.is_silent
    assert "before time went back" in decision.detail
    np.testing.assert_array_equal(decision.command.position_m, last.command.position_m)
    again = c.tick(at(101))  # and here again, without a new frame
    assert again is not None
    assert again.verdict is Verdict.HOLD_STALE
    assert again.is_silent
    decisions = drive(c, *range(61, 90), position_m=(0.1, 0.7, 0.3))
    first = next(d for d in decisions if not d.is_silent)
    assert first.command.stamp_ns >= at(61) + 0.2e9  # the arm has come to rest
    assert {d.verdict for d in decisions if not d.is_silent} == {Verdict.PASS}
    begun = next(request for request in plan.requests if at(61) <= request.stamp_ns < at(100))
    np.testing.assert_array_equal(begun.reference_m, [0.1, 0.7, 0.3])


# ---- real time -----------------------------------------------------------------------------------------


def test_arm_holds_while_its_first_plan_is_computed(drive: Callable[..., Any]) -> None:
    c = controller(LatePlanner(Recorder()), "realtime")
    decisions = drive(c, 0, 1, 2)
    assert {d.verdict for d in decisions} == {Verdict.HOLD_NO_PLAN}
    assert {d.detail for d in decisions} == {"no plan yet"}
    np.testing.assert_array_equal([d.command.position_m for d in decisions], [HOME_M] * 3)


def test_late_plan_begins_where_the_arm_held_meanwhile(drive: Callable[..., Any]) -> None:
    """Asked at tick 0 and finished after tick 2: to skip the actions of the past would be a leap."""
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    drive(c, 0, 1, 2)
    planner.finish()
    decisions = drive(c, *range(3, 10))
    np.testing.assert_allclose(x_m(decisions), np.arange(1, 8) / 1e3, atol=1e-12)
    assert [round(d.command.gripper * 10) for d in decisions] == list(range(1, 8))


def test_late_plan_skips_what_the_plan_before_it_has_done(drive: Callable[..., Any]) -> None:
    planner = LatePlanner(Steady())
    c = controller(planner, "realtime")
    drive(c, 0)
    planner.finish()
    drive(c, *range(1, 8))  # asked for anew at tick 5, on the way
    assert [request.stamp_ns for request in planner.requests] == [at(0), at(5)]
    planner.finish()
    decisions = drive(c, 8, 9)
    np.testing.assert_allclose(x_m(decisions), [0.008, 0.009], atol=1e-12)
    assert [round(d.command.gripper * 10) for d in decisions] == [4, 5]  # of the second plan, for now


def test_a_hand_that_was_held_too_closes_from_the_beginning(drive: Callable[..., Any]) -> None:
    planner = LatePlanner(Recorder(step_m=0.0))
    c = controller(planner, "realtime")
    drive(c, 0, 1, 2)
    planner.finish()
    decisions = drive(c, 3, 4, 5)
    assert [round(d.command.gripper * 10) for d in decisions] == [1, 2, 3]


def test_plan_is_given_up_at_a_hold(drive: Callable[..., Any], make_frame: Callable) -> None:
    """Cameras covered for half of a long plan: to go on with it where the clock has it would be a leap."""
    planner = InlinePlanner(lambda request: stride_towards_goal(request, 32))
    c = controller(planner, horizons={"T_o": T_O, "T_p": 32, "T_a": 16})
    steps_m = []
    for tick in range(80):
        last = c.hold(at(tick))
        measured_m = HOME_M if last is None else tuple(last.position_m)
        c.observe(make_frame(at(tick), measured_m, **({"images": RED} if 3 <= tick < 14 else {})))
        decision = c.tick(at(tick))
        assert decision is not None
        steps_m.append(np.linalg.norm(decision.command.position_m - measured_m))
    assert max(steps_m) < 1.01 * STRIDE_M


def test_plan_that_comes_after_all_its_actions_moves_nothing(drive: Callable[..., Any]) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    drive(c, *range(7))
    planner.finish()
    (decision,) = drive(c, 7)
    assert decision.verdict is Verdict.HOLD_NO_PLAN
    assert decision.detail
    np.testing.assert_array_equal(decision.command.position_m, HOME_M)


def test_exhausted_plan_holds_and_says_so(drive: Callable[..., Any]) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    drive(c, 0)
    planner.finish()
    decisions = drive(c, *range(1, 10))  # the next plan never comes
    assert [d.verdict for d in decisions[:7]] == [Verdict.PASS] * 7  # to the chunk's end, past T_a
    for decision in decisions[7:]:
        assert decision.verdict is Verdict.HOLD_NO_PLAN
        assert "used up" in decision.detail
        np.testing.assert_array_equal(decision.command.as_array(), decisions[6].command.as_array())


def test_stale_observation_holds_and_says_how_old_it_is(drive: Callable[..., Any]) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime", gate={"max_obs_age_s": 0.03})
    (moving,) = drive(c, 0)
    within = c.tick(at(2))
    assert within is not None
    assert within.verdict is Verdict.PASS
    stale = c.tick(at(3))
    assert stale is not None
    assert stale.verdict is Verdict.HOLD_STALE
    assert "38 ms old" in stale.detail
    assert stale.obs_age_s == pytest.approx(0.0375)
    np.testing.assert_array_equal(stale.command.position_m, within.command.position_m)
    assert moving.verdict is Verdict.PASS


def test_age_is_that_of_the_oldest_camera_sample_not_of_the_frame(make_frame: Callable) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime", gate={"max_obs_age_s": 0.03})
    c.observe(make_frame(at(4), sampled_ns=at(1)))
    decision = c.tick(at(4))
    assert decision is not None
    assert decision.verdict is Verdict.HOLD_STALE


def test_next_plan_is_asked_for_as_early_as_the_last_one_took(drive: Callable[..., Any]) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    drive(c, 0)
    planner.finish(duration_s=2 * DT / 1e9)
    drive(c, 1)
    assert len(planner.requests) == 1
    drive(c, 2)
    assert len(planner.requests) == 1
    drive(c, 3)  # the executed part, begun at tick 1, ends with tick 4
    assert [request.stamp_ns for request in planner.requests] == [at(0), at(3)]


def test_plan_asked_for_while_another_runs_moves_the_arm_from_where_that_one_had_it(
    drive: Callable[..., Any], make_frame: Callable
) -> None:
    """The reference is the command before the frame, though newer ones were sent before the plan was asked for."""
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime", gate={"max_obs_age_s": 1.0})
    drive(c, 0)
    planner.finish()
    sent = drive(c, 1, 2)
    late = [c.tick(at(tick)) for tick in (3, 4, 5)]  # no frame after tick 2; a plan is due at 5
    assert all(late)
    assert [request.stamp_ns for request in planner.requests] == [at(0), at(2)]
    np.testing.assert_array_equal(planner.requests[1].reference_m, sent[0].command.position_m)


def test_hole_in_the_frames_holds_only_when_a_plan_is_due(drive: Callable[..., Any]) -> None:
    c = controller(InlinePlanner(Recorder()), "realtime")
    drive(c, 0, 1)
    moving = drive(c, 3)
    assert moving[0].verdict is Verdict.PASS
    held = drive(c, 8)  # the plan is used up, and tick 7 is missing
    assert held[0].verdict is Verdict.HOLD_NO_PLAN
    assert "frames" in held[0].detail
    assert drive(c, 9)[0].verdict is Verdict.PASS


def test_hold_repeats_the_last_command_for_another_time(drive: Callable[..., Any]) -> None:
    c = controller(InlinePlanner(Recorder()))
    *_, last = drive(c, *range(3))
    held = c.hold(at(9))
    assert held is not None
    assert held.stamp_ns == at(9)
    np.testing.assert_array_equal(held.as_array(), last.command.as_array())


def test_same_frames_and_seed_give_the_same_commands(drive: Callable[..., Any]) -> None:
    def plan(request: PlanRequest) -> NDArray[np.float64]:
        return np.random.default_rng(request.seed).normal(0, 0.001, (T_P, 4))

    runs = [drive(controller(InlinePlanner(plan), policy_seed=3), *range(12)) for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.command.as_array(), b.command.as_array())


def test_frames_that_the_next_plan_will_need_are_offered_before_it_is_due(
    drive: Callable[..., Any], make_frame: Callable
) -> None:
    """Of T_a = 4 frames the two newest are of the next window; the newest one comes with the request."""
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    frames = [make_frame(at(tick)) for tick in range(9)]
    for tick, frame in enumerate(frames):
        c.observe(frame)
        c.tick(at(tick))
        if planner.waiting:
            planner.finish(0.0)
    first, *later = planner.requests
    assert first.images[-1] is frames[0].images
    needed, newest = ([request.images[i] for request in later] for i in (0, -1))
    assert needed
    assert all(any(pictures is offered for offered in planner.offered) for pictures in needed)
    assert not any(pictures is offered for offered in planner.offered for pictures in newest)


def test_frames_that_come_during_a_plan_are_offered_only_for_the_window_of_the_plan_after_it(
    make_frame: Callable,
) -> None:
    """A plan of frame 0 ends at frame 3 of T_a = 4: its successor sees 3 and 4, neither 1 nor 2."""
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    frames = [make_frame(at(tick)) for tick in range(4)]
    for tick, frame in enumerate(frames):
        c.observe(frame)
        c.tick(at(tick))
    assert planner.waiting is not None
    assert [offered is frames[3].images for offered in planner.offered] == [True]


def test_a_plan_is_due_earlier_by_its_wait_for_an_engine_that_was_encoding_a_frame(
    make_frame: Callable,
) -> None:
    planner = LatePlanner(Recorder())
    c = controller(planner, "realtime")
    requested = []
    for tick in range(8):
        c.observe(make_frame(at(tick)))
        c.tick(at(tick))
        if planner.waiting:
            requested.append(tick)
            planner.finish(0.5 * DT / 1e9)
            assert planner.finished is not None
            planner.finished = replace(planner.finished, waited_s=1.5 * DT / 1e9)
    assert requested == [0, 3, 5, 7]  # two ticks before each chunk of T_a = 4 is used up


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_replayed_episode_keeps_the_gripper_unless_the_command_before_it_was_void(
    make_frame: Callable, is_lost: bool
) -> None:
    c = controller(InlinePlanner(Steady()), "realtime")
    c.inherit(Inherited(0.5, None, 1.0, None, None, is_lost))
    assert c.observe(make_frame(at(0)))
    assert c.commander.last is not None
    assert c.commander.last.gripper == (None if is_lost else 0.5)
