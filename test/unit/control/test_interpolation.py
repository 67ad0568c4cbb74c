"""Commands between the ticks of a policy: smooth, through its actions, within the limits, and still in a hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.interpolation import Segment, pchip_slope
from dp_ros.control.planner import DelayedPlanner, PlanRequest
from dp_ros.control.safety import Command, Verdict
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

RATE_HZ, DT = 20.0, 50_000_000
START = 1_000_000_000_000
HOME_M = np.array([0.0, 0.6, 0.2])
T_P = 8
UNWATCHED = {"max_distance_m": 0.0, "max_frozen_s": 0.0}
Array = NDArray[np.float64]
Plan = Callable[[PlanRequest], Array]


class Run:
    """A controller in real time at 20 Hz, with `per_tick` commands a tick and plans that arrive `delay` ticks late."""

    def __init__(
        self, plan: Plan, make_frame: Callable[..., Frame], per_tick: int, delay: int = 0, **settings: Any
    ) -> None:
        policy = PolicyConfig.model_validate({"rate_hz": RATE_HZ, "action": {"position": "absolute"}})
        gate = {**UNWATCHED, **settings.pop("gate", {})}  # the measured arm of these tests does not move
        runtime = RuntimeConfig.model_validate(
            {
                "mode": "realtime",
                "continuity": "switch",
                "command_rate_hz": per_tick * RATE_HZ,
                **settings,
                "gate": gate,
            }
        )
        self.now_ns, self.per_tick = START, per_tick
        self.controller = Controller(policy, runtime, DelayedPlanner(plan, delay * DT, lambda: self.now_ns))
        self._make_frame = make_frame
        self.commands: list[Command] = []
        self.verdicts: list[Verdict] = []

    def run(self, ticks: int, frames: bool = True) -> Run:
        for _ in range(ticks):
            if frames:
                self.controller.observe(self._make_frame(self.now_ns, tuple(HOME_M)))
            for i in range(self.per_tick):
                assert self.controller.is_between(self.now_ns) == (i > 0)
                if i:
                    command = self.controller.between(self.now_ns)
                    assert command is not None
                else:
                    decision = self.controller.tick(self.now_ns)
                    assert decision is not None
                    command = decision.command
                    self.verdicts.append(decision.verdict)
                assert command.stamp_ns == self.now_ns
                self.commands.append(command)
                self.now_ns += self.controller.period_ns
        return self

    @property
    def positions_m(self) -> Array:
        return np.array([command.position_m for command in self.commands])

    def velocities_m(self) -> Array:
        """In metres a tick."""
        return np.diff(self.positions_m, axis=0) * self.per_tick


def follow(path: Callable[[Array], Array]) -> Plan:
    """Plans that agree with one another: actions of a path (N,) ticks since the start -> (N, 3)."""

    def plan(request: PlanRequest) -> Array:
        ticks = round((request.stamp_ns - START) / DT) - 1 + np.arange(T_P)
        return np.append(path(ticks), np.full((T_P, 1), 0.5), axis=1)

    return plan


def wander(ticks: Array) -> Array:
    """Smooth, with turns, at most 16 mm a tick."""
    phase = ticks[:, None] * np.array([0.5, 0.31, 0.7])
    return HOME_M + np.sin(phase) * np.array([0.02, 0.03, 0.01]) + ticks[:, None] * np.array([0.001, 0, 0])


def random_plans(step_m: float) -> Plan:
    """Plans that do not agree: each is a random walk from the reference."""

    def plan(request: PlanRequest) -> Array:
        rng = np.random.default_rng(request.seed)
        walk_m = request.reference_m + np.cumsum(rng.normal(0.0, step_m, (T_P, 3)), axis=0)
        return np.append(walk_m, rng.uniform(-1, 1, (T_P, 1)), axis=1)

    return plan


@pytest.mark.parametrize("per_tick", [2, 5, 25])
@pytest.mark.parametrize("delay", [0, 2])
def test_curve_passes_through_the_actions_at_their_times(
    make_frame: Callable[..., Frame], per_tick: int, delay: int
) -> None:
    """But for the first chunk, before which the arm is at rest somewhere else."""
    run = Run(follow(wander), make_frame, per_tick, delay, gate={"max_speed_m_s": 1.0}).run(40)
    at_ticks, first = run.positions_m[::per_tick], 6 + delay
    np.testing.assert_allclose(at_ticks[first:], wander(np.arange(40.0))[first:], atol=1e-12)
    assert {command.gripper for command in run.commands[first * per_tick :]} == {0.5}


def test_an_emergency_stop_does_not_wait_for_the_next_tick(make_frame: Callable[..., Frame]) -> None:
    run = Run(follow(wander), make_frame, 10).run(20)
    before, last = run.commands[-2:]
    assert not np.array_equal(before.position_m, last.position_m)
    run.controller.commander.stopped = "emergency stop"
    stopped = run.controller.between(run.now_ns - 1)
    assert stopped is not None
    np.testing.assert_array_equal(stopped.position_m, last.position_m)


@pytest.mark.parametrize("plan", [follow(wander), random_plans(0.002)], ids=["agreeing", "random"])
@pytest.mark.parametrize("delay", [0, 2])
def test_velocity_is_continuous_across_ticks_chunks_and_the_start(
    make_frame: Callable[..., Frame], plan: Plan, delay: int
) -> None:
    """With n commands a tick, the velocity changes by a part of 1 / n from one to the next; straight lines leap."""
    changes = {}
    for per_tick in (10, 100):
        run = Run(plan, make_frame, per_tick, delay, gate={"max_speed_m_s": 10.0}).run(30)
        changes[per_tick] = np.abs(np.diff(run.velocities_m(), axis=0)).max()
        assert len(set(run.verdicts)) <= 2  # the first holds, then all pass
    assert changes[10] > 1e-4
    assert changes[100] < 0.13 * changes[10]


def test_between_actions_the_curve_stays_in_the_box_that_they_span(make_frame: Callable[..., Frame]) -> None:
    per_tick = 20
    run = Run(follow(wander), make_frame, per_tick, gate={"max_speed_m_s": 1.0}).run(40)
    at_ticks = run.positions_m[::per_tick]
    for t in range(2, 39):
        ends = at_ticks[t : t + 2]
        inside = run.positions_m[t * per_tick : (t + 1) * per_tick + 1]
        assert (inside >= ends.min(0) - 1e-12).all()
        assert (inside <= ends.max(0) + 1e-12).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_tick", [3, 10])
def test_no_command_leaves_the_workspace_or_takes_a_longer_step(
    make_frame: Callable[..., Frame], seed: int, per_tick: int
) -> None:
    """Whatever the plans say: each command goes as far as its time allows."""
    low_m, high_m = (-0.03, 0.58, 0.19), (0.03, 0.62, 0.23)
    gate = {"workspace_low_m": low_m, "workspace_high_m": high_m, "max_speed_m_s": 0.2}
    run = Run(random_plans(0.02), make_frame, per_tick, delay=1, policy_seed=seed, gate=gate).run(40)
    assert (run.positions_m >= np.array(low_m) - 1e-12).all()
    assert (run.positions_m <= np.array(high_m) + 1e-12).all()
    steps_m = np.linalg.norm(np.diff(run.positions_m, axis=0), axis=1)
    assert steps_m.max() <= 0.01 / per_tick + 1e-12
    assert steps_m.max() > 0.009 / per_tick


def test_missed_commands_slow_the_arm_down_by_no_more_than_a_tick(make_frame: Callable[..., Frame]) -> None:
    """Each command may use the time since the last one: here a whole tick's."""

    def straight(ticks: Array) -> Array:
        return HOME_M + np.outer(ticks, [0.009, 0.0, 0.0])

    run = Run(follow(straight), make_frame, 10, gate={"max_speed_m_s": 0.2})
    for _ in range(20):
        run.controller.observe(make_frame(run.now_ns, tuple(HOME_M)))
        decision = run.controller.tick(run.now_ns)
        assert decision is not None
        run.commands.append(decision.command)
        run.now_ns += DT
    steps_m = np.diff(run.positions_m[:, 0])
    np.testing.assert_allclose(steps_m[6:], 0.009, atol=1e-9)


def test_a_hold_stays_a_hold_at_every_rate_and_motion_begins_again_at_rest(
    make_frame: Callable[..., Frame],
) -> None:
    failing = {7, 8}
    smooth = follow(wander)

    def fragile(request: PlanRequest) -> Array:
        if round((request.stamp_ns - START) / DT) // 4 in failing:
            raise OSError("gone")
        return smooth(request)

    run = Run(fragile, make_frame, 10, gate={"max_speed_m_s": 1.0}).run(44)
    held = [t for t, verdict in enumerate(run.verdicts) if verdict.holds]
    assert held == list(range(28, 36))
    still = run.positions_m[28 * 10 - 1 : 36 * 10]
    np.testing.assert_array_equal(still, np.repeat(still[:1], len(still), axis=0))
    first_m = np.linalg.norm(run.velocities_m()[36 * 10 : 36 * 10 + 2], axis=1)
    assert 0 < first_m[0] < 0.5 * first_m[1]


@pytest.mark.parametrize("per_tick", [2, 5, 20])
def test_the_first_move_after_a_short_hold_goes_on_from_the_speed_that_is_left(
    make_frame: Callable[..., Frame], per_tick: int
) -> None:
    """A hold that ends while the arm still brakes must not stop it dead."""

    def fragile(request: PlanRequest) -> Array:
        if START + 20 * DT <= request.stamp_ns < START + 27 * DT:
            raise OSError("gone")
        return follow(lambda ticks: HOME_M + np.outer(ticks, [0.02, 0.0, 0.0]))(request)

    gate = {"max_speed_m_s": 1.0, "max_acceleration_m_s2": 1.0, "max_chunk_age_s": 0.0}
    run = Run(fragile, make_frame, per_tick, gate=gate).run(60)
    assert any(verdict.holds for verdict in run.verdicts[20:])
    period_s = run.controller.period_ns / 1e9
    accelerations = np.diff(run.positions_m, n=2, axis=0) / period_s**2
    assert np.linalg.norm(accelerations, axis=1).max() <= 1.0 * (1 + 1e-6)


def test_an_observation_that_grows_stale_between_ticks_stops_the_arm_there(
    make_frame: Callable[..., Frame],
) -> None:
    run = Run(follow(wander), make_frame, 10, gate={"max_obs_age_s": 0.12, "max_speed_m_s": 1.0}).run(8)
    moving = len(run.commands)
    run.run(3, frames=False)
    steps_m = np.linalg.norm(np.diff(run.positions_m, axis=0), axis=1)
    stops = int(np.flatnonzero(steps_m == 0.0)[0]) + 1
    age_s = [
        (run.commands[i].stamp_ns - run.commands[moving - 10].stamp_ns) / 1e9 for i in (stops - 1, stops)
    ]
    assert age_s[0] <= 0.12 < age_s[1]
    assert (steps_m[stops:] == 0.0).all()


def test_rates_are_multiples_of_the_policys(make_frame: Callable[..., Frame]) -> None:
    for rate_hz, per_tick in ((0, 1), (20, 1), (29, 1), (90, 4), (125, 6)):
        run = Run(follow(wander), make_frame, 1, command_rate_hz=rate_hz)
        assert run.controller.period_ns == DT // per_tick
        assert run.controller.between(START) is None


def test_without_a_rate_every_call_is_a_tick_however_early(make_frame: Callable[..., Frame]) -> None:
    run = Run(follow(wander), make_frame, 1, command_rate_hz=0).run(3)
    assert not run.controller.is_between(run.now_ns - DT + 1)


def test_rate_below_the_policys_is_refused_in_one_line(make_frame: Callable[..., Frame]) -> None:
    with pytest.raises(
        ConfigError, match=r"command_rate_hz 10 is below the policy's rate 20: give at least that, or 0"
    ) as caught:
        Run(follow(wander), make_frame, 1, command_rate_hz=10.0)
    assert "\n" not in str(caught.value)


def test_clock_that_goes_back_makes_a_tick_due(make_frame: Callable[..., Frame]) -> None:
    run = Run(follow(wander), make_frame, 5).run(3)
    assert not run.controller.is_between(START - DT)
    assert run.controller.is_between(run.now_ns - DT // 2)
    assert not run.controller.is_between(run.now_ns + 10 * DT)


def test_slopes_are_harmonic_means_and_zero_at_turns() -> None:
    before, after = np.array([1.0, 1.0, 2.0, 0.0]), np.array([3.0, -1.0, 2.0, 5.0])
    np.testing.assert_allclose(pchip_slope(before, after), [1.5, 0.0, 2.0, 0.0])


def test_segment_has_the_ends_and_slopes_that_it_was_given() -> None:
    rng = np.random.default_rng(0)
    start_m, start_slope, end_m, end_slope = rng.normal(size=(4, 3))
    segment = Segment(START, DT, start_m, start_slope, end_m, end_slope)
    for now_ns, position_m, slope in ((START, start_m, start_slope), (START + DT, end_m, end_slope)):
        found_m, found = segment.at(now_ns)
        np.testing.assert_allclose(found_m, position_m, atol=1e-12)
        np.testing.assert_allclose(found, slope, atol=1e-12)
    ahead_m = segment.at(START + DT // 2 + 500)[0] - segment.at(START + DT // 2 - 500)[0]
    np.testing.assert_allclose(ahead_m / (1000 / DT), segment.at(START + DT // 2)[1], rtol=1e-5)
