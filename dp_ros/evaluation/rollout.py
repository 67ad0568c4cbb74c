"""Episodes in one process: simulator, controller, engine. The same controller that the node ticks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.controller import Controller
from dp_ros.control.worker import InlinePlanner, PlanFunction
from dp_ros.evaluation.statistics import EpisodeResult
from dp_ros.schema import PolicyConfig, RuntimeConfig
from dp_ros.sim.metaworld_arm import MetaworldArm, Observation
from dp_ros.streams import Frame


def frame_of(observation: Observation, stamp_ns: int, cameras: tuple[str, ...]) -> Frame:
    """The simulator's observation as the controller takes it."""
    images = np.stack([observation.images[camera] for camera in cameras])
    return Frame(stamp_ns, images, observation.ee_position_m, observation.gripper, sampled_ns=stamp_ns)


def run_episode(
    arm: MetaworldArm,
    plan: PlanFunction,
    policy: PolicyConfig,
    runtime: RuntimeConfig,
    seed: int,
    max_steps: int,
    on_tick: Callable[[], None] | None = None,
) -> tuple[EpisodeResult, list[float]]:
    """One lockstep episode; the result, and the duration of every plan in seconds. `on_tick` may draw."""
    controller = Controller(policy, runtime.model_copy(update={"mode": "lockstep"}), InlinePlanner(plan))
    observation = arm.reset(seed)
    plans_s: list[float] = []
    while not arm.success and arm.steps < max_steps:
        stamp_ns = arm.steps * controller.dt_ns
        controller.observe(frame_of(observation, stamp_ns, policy.encoder.cameras))
        decision = controller.tick(stamp_ns)
        assert decision is not None  # an inline planner has always answered
        if decision.plan_s is not None:
            plans_s.append(decision.plan_s)
        if on_tick:
            on_tick()
        observation = arm.step(decision.command.as_array())
    if on_tick:
        on_tick()
    reason = "" if arm.success else "time limit"
    return EpisodeResult(seed, arm.success, arm.steps, reason), plans_s


def record(
    frames: list[NDArray[np.uint8]], arm: MetaworldArm, camera: str, size_px: int = 480
) -> Callable[[], None]:
    """An `on_tick` that appends a picture of every second tick to `frames`."""

    def draw() -> None:
        if arm.steps % 2 == 0:
            frames.append(arm.render(camera, size_px, size_px))

    return draw
