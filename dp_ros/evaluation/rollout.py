"""Episodes in one process: simulator, controller, engine. The same controller that the node ticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dp_ros.control.controller import Controller
from dp_ros.control.worker import InlinePlanner, PlanFunction
from dp_ros.evaluation.film import Picture, beside
from dp_ros.evaluation.statistics import EpisodeResult, Report
from dp_ros.inference.torch_engine import TorchEngine
from dp_ros.policy.checkpoint_config import bridge_for
from dp_ros.schema import ConfigError, EncoderConfig, PolicyConfig, RuntimeConfig
from dp_ros.sim.metaworld_arm import RATE_HZ, MetaworldArm, Observation, check_task
from dp_ros.streams import Frame, fit_image

SPECTATOR_PX = 480
DRAW_EVERY = 2  # ticks between two pictures of a video
VIDEO_FPS = round(RATE_HZ / DRAW_EVERY)  # so that videos play in real time


def evaluate_in_process(
    checkpoint: str | Path,
    task: str,
    seeds: Sequence[int],
    *,
    max_steps: int,
    runtime: RuntimeConfig,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_video: Callable[[EpisodeResult, list[Picture]], None] | None = None,
    spectator: str = "corner2",
) -> Report:
    """One lockstep episode for each seed, in this process; `on_episode` hears of each as it ends.

    `on_video` gets each episode's pictures, VIDEO_FPS of them a second: uint8 (480, 720, 3), the camera
    `spectator` beside what the policy sees. Raises ConfigError (a policy of another rate), TaskError, CheckpointError,
    RenderingError.
    """
    task = check_task(task)
    engine = TorchEngine(checkpoint, runtime)
    policy = engine.config
    if policy.rate_hz != RATE_HZ:
        raise ConfigError(f"{checkpoint}: runs at {policy.rate_hz:g} Hz, the simulated arm at {RATE_HZ:g} Hz")
    bridge = bridge_for(checkpoint, task=task)
    arm = MetaworldArm(task, bridge.cameras, bridge.width_px, bridge.height_px, bridge.markers)
    report = Report(task, str(checkpoint), "in-process", runtime.policy_seed)
    try:
        for seed in seeds:
            pictures: list[Picture] = []
            draw = record(pictures, arm, spectator) if on_video else None
            result, plans_s = run_episode(arm, engine, policy, runtime, seed, max_steps, draw)
            report.results.append(result)
            report.plan_s.extend(plans_s)
            if on_episode:
                on_episode(result)
            if on_video:
                on_video(result, pictures)
    finally:
        arm.close()
    return report


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
    problem = ""
    while not arm.success and arm.steps < max_steps:
        stamp_ns = arm.steps * controller.dt_ns
        controller.observe(frame_of(observation, stamp_ns, policy.encoder))
        decision = controller.tick(stamp_ns)
        if decision is None:  # an inline planner has always answered: the episode may not begin here
            return EpisodeResult(seed, False, arm.steps, controller.refused), plans_s
        problem = decision.detail or problem
        if decision.plan_s is not None:
            plans_s.append(decision.plan_s)
        if on_tick:
            on_tick()
        observation = arm.step(decision.command.as_array())
    if on_tick:
        on_tick()
    reason = "" if arm.success else problem or "time limit"
    return EpisodeResult(seed, arm.success, arm.steps, reason), plans_s


def frame_of(observation: Observation, stamp_ns: int, encoder: EncoderConfig) -> Frame:
    """The simulator's observation as the controller takes it: the policy's cameras, in its order and size."""
    images = [
        fit_image(observation.images[camera], encoder.height_px, encoder.width_px, camera)
        for camera in encoder.cameras
    ]
    return Frame(
        stamp_ns, np.stack(images), observation.ee_position_m, observation.gripper, sampled_ns=stamp_ns
    )


def record(pictures: list[Picture], arm: MetaworldArm, camera: str) -> Callable[[], None]:
    """An `on_tick` that appends, every second tick, the spectator's picture beside the arm's own."""

    def draw() -> None:
        if arm.steps % DRAW_EVERY == 0:
            seen = [arm.render(own) for own in arm.cameras]
            pictures.append(beside(arm.render(camera, SPECTATOR_PX, SPECTATOR_PX), seen))

    return draw


def check_unseen(config: Mapping[str, Any], task: str, seeds: Sequence[int]) -> None:
    """ConfigError where the policy was trained on one of the seeds: that would not be a test."""
    data = config.get("training", {}).get("data", {})
    first = data.get("first_seed")
    if first is None or data.get("task", task) != task or not seeds:
        return
    # A checkpoint that does not say how many seeds it has seen may have seen all that follow.
    behind = first + data["tried"] if "tried" in data else max(seeds) + 1
    seen = [seed for seed in seeds if first <= seed < behind]
    if seen:
        trained = f"{first} to {behind - 1}" if "tried" in data else f"{first} and above"
        raise ConfigError(
            f"seeds {min(seeds)} to {max(seeds)} overlap the training seeds {trained}: choose another --seed"
        )
