"""Episodes of the scripted experts: noise moves the arm, the labels are clean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.sim.arm import Array, Image, Observation, SimulatedArm


@dataclass(frozen=True)
class Demonstration:
    """One successful episode of T ticks; row t is tick t."""

    seed: int
    noise: float
    images: dict[str, Image]  # camera -> (T, H, W, 3)
    ee_pose: Array  # (T, 3) measured position [m]
    gripper: Array  # (T,) measured opening [0, 1]
    action: Array  # (T, 4) the label: the expert's clean command
    command: Array  # (T, 4) the command that moved the arm


class NoisyExpert:
    """The scripted expert in one episode: at each tick a clean label, and the command that moves the arm.

    `noise` is the standard deviation of what is added to each coordinate of the executed move, in longest moves of
    one tick (`SimulatedArm.max_step_m`; DART, Laskey et al. 2017). The gripper is never perturbed.
    """

    def __init__(self, arm: SimulatedArm, seed: int, noise: float = 0.0) -> None:
        self._arm, self._noise = arm, noise
        self._rng = np.random.default_rng([seed, int(noise * 1000)])

    def answer(self) -> tuple[Array, Array]:
        """(label, command), both absolute (4,), at the arm's present state. Call it once per tick."""
        action = self._arm.expert_command()
        command = action.copy()
        if self._noise > 0:
            command = self._arm.perturb(action, self._rng.normal(0.0, self._noise, POSITION.size))
        return action, command


def demonstrate(
    arm: SimulatedArm, seed: int, noise: float = 0.0, max_steps: int = 300, keep_steps: int = 0
) -> Demonstration | None:
    """Run the expert on one seed; None when it does not succeed within `max_steps`.

    `noise`: see NoisyExpert. `keep_steps`: ticks recorded after the success.
    """
    return take_over(arm, arm.reset(seed), seed, noise, max_steps, keep_steps)


def take_over(
    arm: SimulatedArm, observation: Observation, seed: int, noise: float, max_steps: int, keep_steps: int
) -> Demonstration | None:
    """As `demonstrate`, from the arm's present state, which `observation` shows.

    Ticks since the reset count towards `max_steps`.
    """
    expert = NoisyExpert(arm, seed, noise)
    seen: list[Observation] = []
    actions: list[Array] = []
    commands: list[Array] = []
    after_success = 0
    while arm.steps < max_steps and after_success <= keep_steps:
        action, command = expert.answer()
        seen.append(observation)
        actions.append(action)
        commands.append(command)
        observation = arm.step(command)
        after_success += arm.success
    if not arm.success:
        return None
    return Demonstration(
        seed=seed,
        noise=noise,
        images={camera: np.stack([o.images[camera] for o in seen]) for camera in arm.spec.cameras},
        ee_pose=np.stack([o.ee_position_m for o in seen]),
        gripper=np.array([o.gripper for o in seen]),
        action=np.stack(actions),
        command=np.stack(commands),
    )
