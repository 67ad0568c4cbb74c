"""Transitions between chunks: what a plan is told of the actions before it, and how the arm enters its chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp_ros.actions import POSITION, decode_positions, gripper_of
from dp_ros.control.chunk import Chunk
from dp_ros.control.controller import Controller
from dp_ros.control.planner import DelayedPlanner, PlanRequest
from dp_ros.schema import ConfigError, Horizons, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

DT = 12_500_000
START = 1_000_000_000_000
STRIDE_M = 0.002
T_P = 8
Plan = Callable[[PlanRequest], NDArray[np.float64]]


class Run:
    """Ticks of a controller on virtual time whose plans arrive `delay` ticks late; None: lockstep."""

    def __init__(
        self, plan: Plan, make_frame: Callable[..., Frame], delay: int | None, **settings: Any
    ) -> None:
        self.tick = 0
        horizons = settings.pop("horizons", {"T_o": 2, "T_p": T_P, "T_a": 4})
        kind = settings.pop("kind", "relative")
        self.policy = PolicyConfig.model_validate({"horizons": horizons, "action": {"position": kind}})
        mode = "lockstep" if delay is None else "realtime"
        gate = {"max_distance_m": 0.0, "max_frozen_s": 0.0}  # the measured arm does not move here
        runtime = RuntimeConfig.model_validate(
            {"mode": mode, "continuity": "switch", "gate": gate, **settings}
        )
        self.requests: list[PlanRequest] = []

        def ask(request: PlanRequest) -> NDArray[np.float64]:
            self.requests.append(request)
            return plan(request)

        planner = DelayedPlanner(ask, (delay or 0) * DT, lambda: self.now_ns)
        self.controller = Controller(self.policy, runtime, planner)
        self._make_frame = make_frame
        self.actions: list[NDArray[np.float64]] = []  # commanded, (4,)
        self.holds: list[bool] = []

    @property
    def now_ns(self) -> int:
        return START + self.tick * DT

    def run(self, ticks: int) -> Run:
        for _ in range(ticks):
            self.controller.observe(self._make_frame(self.now_ns, (0.0, 0.6, 0.2)))
            decision = self.controller.tick(self.now_ns)
            assert decision is not None
            self.actions.append(decision.command.as_array())
            self.holds.append(decision.verdict.holds)
            self.tick += 1
        return self


def shaken(request: PlanRequest) -> NDArray[np.float64]:
    """A stride a tick along x, but each plan is displaced sideways at random, by about 3 mm."""
    chunk = np.zeros((T_P, 4))
    chunk[:, 0] = STRIDE_M * np.arange(T_P)
    chunk[:, 1] = np.random.default_rng(request.seed).normal(0.0, 0.003)
    chunk[:, 3] = 0.25
    return chunk


def obedient(request: PlanRequest) -> NDArray[np.float64]:
    """The same, but it repeats the committed actions and goes on sideways where they end."""
    chunk = shaken(request)
    if request.committed is not None:
        known = np.isfinite(request.committed[:, 0])
        chunk[known] = request.committed[known]
        chunk[~known, 1] = chunk[known][-1, 1]
        chunk[~known, 0] = chunk[known][-1, 0] + STRIDE_M * np.arange(1, 1 + (~known).sum())
    return chunk


def steps_m(run: Run) -> NDArray[np.float64]:
    """Sideways steps of the commands after the first hold."""
    moving = np.array(run.actions)[run.holds.index(False) :]
    return np.diff(moving[:, 1])


@pytest.mark.parametrize(("delay", "same"), [(2, "ensemble"), (None, "switch")])
def test_unless_set_chunks_are_blended_where_plans_are_late(
    make_frame: Callable[..., Frame], delay: int | None, same: str
) -> None:
    run, expected = (Run(shaken, make_frame, delay, continuity=how).run(30) for how in ("auto", same))
    np.testing.assert_array_equal(run.actions, expected.actions)
    assert {request.committed for request in run.requests} == {None}


@pytest.mark.parametrize("kind", ["absolute", "relative", "delta"])
@pytest.mark.parametrize("horizons", [(1, 8, 4), (2, 8, 4), (3, 8, 3)], ids=str)
@pytest.mark.parametrize("delay", [None, 1, 2, 3])
def test_committed_actions_are_those_that_the_arm_executes(
    make_frame: Callable[..., Frame], kind: str, horizons: tuple[int, int, int], delay: int | None
) -> None:
    """Decoded as any chunk, they are the commands of the ticks that their places in the chunk are for."""
    T_o, _, T_a = horizons

    def plan(request: PlanRequest) -> NDArray[np.float64]:
        chunk = np.zeros((T_P, 4))
        path = 0.001 * (np.arange(T_P) - (T_o - 2)) ** 2
        chunk[:, 0] = {"relative": path, "absolute": request.reference_m[0] + path, "delta": 0.001}[kind]
        chunk[:, 1:3] = request.reference_m[1:] if kind == "absolute" else 0.0
        chunk[:, 3] = np.random.default_rng(request.seed).uniform(-1, 1, T_P)
        return chunk

    sizes = {"T_o": T_o, "T_p": T_P, "T_a": T_a}
    run = Run(plan, make_frame, delay, kind=kind, horizons=sizes, continuity="inpaint").run(40)
    checked = 0
    for request in run.requests[2:-1]:
        assert request.committed is not None
        known = np.flatnonzero(np.isfinite(request.committed[:, 0]))
        assert list(known) == list(range(T_o - 1 + (delay or 0)))
        asked = round((request.stamp_ns - START) / DT)
        sent = np.array([run.actions[asked - (T_o - 1) + i] for i in known]).reshape(-1, 4)
        positions_m = decode_positions(
            POSITION.of(np.nan_to_num(request.committed)), request.reference_m, Horizons(**sizes), kind
        )
        np.testing.assert_allclose(positions_m[known], POSITION.of(sent), atol=1e-12)
        np.testing.assert_allclose(gripper_of(request.committed)[known], gripper_of(sent), atol=1e-12)
        checked += len(known)
    assert checked or (T_o == 1 and delay is None)


def test_at_the_start_only_what_was_commanded_is_committed(make_frame: Callable[..., Frame]) -> None:
    """The measured position counts as the command before; no gripper was commanded."""
    (request,) = Run(obedient, make_frame, 0, continuity="inpaint").run(1).requests
    assert request.committed is not None
    np.testing.assert_array_equal(request.committed[0], [0.0, 0.0, 0.0, np.nan])
    assert np.isnan(request.committed[1:]).all()


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_inpainted_chunks_are_entered_without_a_jump(make_frame: Callable[..., Frame], delay: int) -> None:
    """Plans without the committed actions lead to jumps of millimetres at every boundary."""
    switched = Run(obedient, make_frame, delay).run(60)
    inpainted = Run(obedient, make_frame, delay, continuity="inpaint").run(60)
    assert np.abs(steps_m(switched)).max() > 0.004
    np.testing.assert_allclose(steps_m(inpainted), 0.0, atol=1e-12)
    assert sum(inpainted.holds) == sum(switched.holds) == delay


@pytest.mark.parametrize("delay", [1, 2, 3, 4, 6])
def test_shifted_chunks_are_entered_without_a_jump(make_frame: Callable[..., Frame], delay: int) -> None:
    """Also where the arm held in between, and the step along the path is that of the chunk."""
    run = Run(shaken, make_frame, delay, continuity="shift").run(60)
    positions_m = np.array(run.actions)
    moves = [t for t, held in enumerate(run.holds) if t and not held]
    assert len(moves) > 10
    for t in moves[1:]:  # the first chunk begins at its reference, but for the 3 mm of `shaken`
        np.testing.assert_allclose(
            positions_m[t, :3] - positions_m[t - 1, :3], [STRIDE_M, 0.0, 0.0], atol=1e-12
        )
    np.testing.assert_array_equal(positions_m[moves, 3], 0.25)  # the gripper is as planned


def test_shift_changes_nothing_in_lockstep_where_the_last_command_is_the_reference(
    make_frame: Callable[..., Frame],
) -> None:
    def plan(request: PlanRequest) -> NDArray[np.float64]:
        steps_m = np.random.default_rng(request.seed).normal(0.0, 0.003, (T_P, 3))
        return np.append(np.cumsum(steps_m, axis=0), np.zeros((T_P, 1)), axis=1)

    switched, shifted = (Run(plan, make_frame, None, continuity=how).run(20) for how in ("switch", "shift"))
    np.testing.assert_array_equal(shifted.actions, switched.actions)


def test_shift_of_absolute_positions_is_refused_in_one_line(make_frame: Callable[..., Frame]) -> None:
    with pytest.raises(
        ConfigError, match=r"absolute positions.*choose switch, ensemble or inpaint"
    ) as caught:
        Run(shaken, make_frame, 2, kind="absolute", continuity="shift")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("horizons", [(1, 8, 4), (3, 8, 4)], ids=str)
def test_shift_begins_at_the_reference_for_every_number_of_observed_frames(
    make_frame: Callable[..., Frame], horizons: tuple[int, int, int]
) -> None:
    T_o, _, T_a = horizons

    def plan(request: PlanRequest) -> NDArray[np.float64]:
        chunk = np.zeros((T_P, 4))
        chunk[:, 0] = STRIDE_M * (np.arange(T_P) - (T_o - 2))
        return chunk

    sizes = {"T_o": T_o, "T_p": T_P, "T_a": T_a}
    run = Run(plan, make_frame, None, horizons=sizes, continuity="shift").run(12)
    np.testing.assert_allclose(np.array(run.actions)[:, 0], STRIDE_M * np.arange(1, 13), atol=1e-12)


@pytest.mark.parametrize("delay", [None, 1, 2])
def test_ensembled_chunks_are_entered_in_small_steps(
    make_frame: Callable[..., Frame], delay: int | None
) -> None:
    switched = Run(shaken, make_frame, delay).run(60)
    ensembled = Run(shaken, make_frame, delay, continuity="ensemble").run(60)
    assert np.abs(steps_m(ensembled)).max() < 0.5 * np.abs(steps_m(switched)).max()
    np.testing.assert_array_equal(ensembled.actions[-1][3], 0.25)


def test_committed_actions_are_limited_as_the_gate_will_limit_them(make_frame: Callable[..., Frame]) -> None:
    low_m, high_m = (-0.5, 0.3, 0.0), (0.004, 1.0, 0.6)
    gate = {"workspace_low_m": low_m, "workspace_high_m": high_m}
    run = Run(shaken, make_frame, 3, continuity="inpaint", gate=gate).run(20)
    request = run.requests[-1]
    assert request.committed is not None
    known_m = request.reference_m[0] + request.committed[:4, 0]
    np.testing.assert_allclose(known_m, 0.004)


def chunk(values: list[float], first_tick: int = 0) -> Chunk:
    """A chunk with these numbers as its x, T_o = 1."""
    actions = np.zeros((len(values), 4))
    actions[:, 0] = values
    return Chunk(first_tick * DT, DT, actions, Horizons(T_o=1, T_p=len(values), T_a=1))


@pytest.mark.parametrize("delay", [None, 2])
def test_each_plan_but_the_first_gets_the_one_before_it_as_its_guess(
    make_frame: Callable[..., Frame], delay: int | None
) -> None:
    """Shifted by the ticks between their frames: a straight path, and a gripper that says the action's place."""
    plan = np.outer(np.arange(T_P), [STRIDE_M, 0.0, 0.0, 0.1])
    run = Run(lambda request: plan, make_frame, delay, warm_start=1).run(30)
    assert run.requests[0].guess is None
    for before, request in zip(run.requests[1:], run.requests[2:], strict=False):
        assert request.guess is not None
        np.testing.assert_allclose(POSITION.of(request.guess), POSITION.of(plan), atol=1e-9)
        passed = (request.stamp_ns - before.stamp_ns) // DT
        places = np.minimum(np.arange(T_P) + passed, T_P - 1)
        np.testing.assert_allclose(gripper_of(request.guess), 0.1 * places, atol=1e-9)
    assert len(run.requests) > 3
    cold = Run(lambda request: plan, make_frame, delay).run(30)
    assert {request.guess is None for request in cold.requests} == {True}


def test_blending_rises_evenly_where_both_chunks_have_actions() -> None:
    before, after = chunk([0.0] * 6), chunk([1.0] * 8, first_tick=2)
    blended = after.blended(before, now_ns=3 * DT)
    np.testing.assert_allclose(blended.actions[:, 0], [1, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    np.testing.assert_array_equal(after.actions[:, 0], 1.0)  # a new chunk
    assert blended.t0_ns == after.t0_ns


def test_blending_leaves_a_chunk_that_follows_one_which_is_over() -> None:
    before, after = chunk([0.0] * 6), chunk([1.0] * 8, first_tick=6)
    np.testing.assert_array_equal(after.blended(before, 6 * DT).actions, after.actions)


def test_blending_passes_over_actions_that_are_not_finite_and_keeps_those_of_the_new_chunk() -> None:
    before, after = chunk([0.0, np.nan, 0.0]), chunk([1.0, 1.0, np.nan])
    x = after.blended(before, 0).actions[:, 0]
    assert x[:2].tolist() == [0.25, 1.0]
    assert np.isnan(x[2])  # the gate holds
