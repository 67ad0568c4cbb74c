"""One episode in this process: simulated arm, controller, engine. The node ticks the same controller.

It is in lockstep, unless the disturbance delays the plans: then it is in real time, on virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp_ros.actions import ACTION_DIM
from dp_ros.control.controller import Controller
from dp_ros.control.planner import DelayedPlanner, InferenceFn, InlinePlanner, Planner
from dp_ros.control.safety import Verdict
from dp_ros.evaluation.disturbances import NONE, Disturbance
from dp_ros.evaluation.results import EpisodeResult
from dp_ros.evaluation.trace import Trace
from dp_ros.evaluation.video_frames import Picture, with_policy_view
from dp_ros.pictures import fit_image
from dp_ros.schema import EncoderConfig, PolicyConfig, RuntimeConfig
from dp_ros.sim.arm import Array, Observation, SimulatedArm, keep_gripper, rest_command, simulator_of
from dp_ros.streams import Frame

SPECTATOR_PX = 480
DRAW_EVERY = 2  # ticks between two pictures of a video

OnTick = Callable[[Observation], None]  # is given what the policy saw


def video_fps(task: str) -> int:
    """Pictures in a second, so that the videos of a task play in real time."""
    return round(simulator_of(task).rate_hz / DRAW_EVERY)


def run_episode(
    arm: SimulatedArm,
    plan: InferenceFn,
    policy: PolicyConfig,
    runtime: RuntimeConfig,
    seed: int,
    max_steps: int,
    on_tick: OnTick | None = None,
    disturbance: Disturbance = NONE,
    instruction: NDArray[np.float32] | None = None,
) -> tuple[EpisodeResult, Trace]:
    """One episode: its result, and its trace tick by tick. `on_tick` may draw.

    instruction: embedding of a sentence, for a policy that is told what to do.
    """
    delay = disturbance.plan_ticks
    mode = "lockstep" if delay is None else "realtime"
    runtime = disturbance.perturb_runtime(runtime, policy.rate_hz).model_copy(update={"mode": mode})
    dt_ns = round(1e9 / policy.rate_hz)
    planner: Planner = InlinePlanner(plan)
    if delay is not None:
        planner = DelayedPlanner(plan, delay * dt_ns, lambda: arm.steps * dt_ns)
    controller = Controller(policy, runtime, planner)
    controller.instruct(instruction)
    world = _World(arm, seed, disturbance)
    verdicts: list[Verdict] = []
    plans_s: list[float] = []
    plans: list[int] = []
    ood = controller.commander.ood
    scores: list[float] = []
    warned: list[bool] = []
    problem = ""
    while not arm.success and arm.steps < max_steps:
        stamp_ns = arm.steps * dt_ns
        if world.seen is not None:
            controller.observe(frame_of(world.seen, stamp_ns, policy.encoder))
        decision = controller.tick(stamp_ns)
        if decision is None:  # lockstep never waits for an inline planner: the episode may not begin here
            problem = controller.refused
            break
        # A hold that has ended is not the reason of a failure.
        problem = decision.detail if decision.verdict.holds else ""
        if decision.plan_s is not None:
            plans_s.append(decision.plan_s)
        verdicts.append(decision.verdict)
        plans.append(-1 if decision.verdict.holds else len(plans_s) - 1)
        scores.append(np.nan if ood.score is None else ood.score)
        warned.append(bool(ood.warning))
        if on_tick:
            on_tick(world.shown)
        world.step(decision.command.as_array())
    if on_tick:
        on_tick(world.shown)
    reason = "" if arm.success else problem or "time limit"
    trace = world.trace(verdicts, plans_s, plans)
    if not np.isnan(scores).all():
        trace = replace(trace, ood_score=np.array(scores), warned=np.array(warned))
    return EpisodeResult(seed, arm.success, arm.steps, reason), trace


def replay(
    arm: SimulatedArm, seed: int, trace: Trace, disturbance: Disturbance = NONE, on_tick: OnTick | None = None
) -> Trace:
    """The episode of `trace` once more, without a policy: the same commands lead to the same states."""
    world = _World(arm, seed, disturbance)
    for command in trace.command:
        if on_tick:
            on_tick(world.shown)
        world.step(command)
    if on_tick:
        on_tick(world.shown)
    again = world.trace(trace.verdict, trace.plan_s, trace.plan)
    return replace(again, ood_score=trace.ood_score, warned=trace.warned)


class _World:
    """The arm in one episode under a disturbance."""

    def __init__(self, arm: SimulatedArm, seed: int, disturbance: Disturbance) -> None:
        self.arm, self.seed, self.disturbance = arm, seed, disturbance
        self._commands: list[Array] = []
        self._positions_m: list[Array] = []
        observation = arm.reset(seed)
        self._rest = rest_command(arm, observation)
        self.seen: Observation | None = None  # reaches the policy at this tick; None where it is lost
        self.shown = observation  # the newest that reached it
        self._disturb(observation)

    def step(self, command: Array) -> None:
        self._commands.append(keep_gripper(command, self._commands[-1] if self._commands else self._rest))
        self._disturb(self.arm.step(self.disturbance.perturb_command(self._commands, self._rest)))

    def _disturb(self, observation: Observation) -> None:
        t = self.arm.steps
        if self.disturbance.perturb_scene(self.arm, self.seed, t):
            observation = self.arm.observe()
        self._positions_m.append(observation.ee_position_m)
        self.seen = self.disturbance.perturb_observation(observation, self.seed, t)
        self.shown = self.seen or self.shown

    def trace(self, verdicts: Sequence[Verdict], plans_s: ArrayLike, plans: ArrayLike) -> Trace:
        commands = np.array(self._commands).reshape(-1, ACTION_DIM)
        durations_s, numbers = np.array(plans_s, dtype=np.float64), np.array(plans, dtype=np.int64)
        return Trace(commands, np.array(self._positions_m), tuple(verdicts), durations_s, numbers)


def frame_of(observation: Observation, stamp_ns: int, encoder: EncoderConfig) -> Frame:
    """The controller's frame of a simulated observation: the policy's cameras, in its order and sizes."""
    images = tuple(
        fit_image(observation.images[camera], encoder.target(camera), f"camera {camera}")
        for camera in encoder.cameras
    )
    return Frame(stamp_ns, images, observation.ee_pose, observation.gripper, sampled_ns=stamp_ns)


def record(pictures: list[Picture], arm: SimulatedArm, camera: str) -> OnTick:
    """An `on_tick` that appends, every DRAW_EVERY ticks, the spectator's picture beside what the policy saw."""

    def draw(observation: Observation) -> None:
        if arm.steps % DRAW_EVERY == 0:
            spectator = arm.render(camera, SPECTATOR_PX, SPECTATOR_PX)
            pictures.append(with_policy_view(spectator, list(observation.images.values())))

    return draw
