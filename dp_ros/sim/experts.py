"""Episodes of the scripted experts, with noise injected into what moves the arm and clean labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.sim.metaworld_arm import MetaworldArm, Observation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Demonstration:
    """One successful episode of T ticks. Row t: what was seen, the clean answer, what really moved the arm."""

    seed: int
    noise: float
    images: dict[str, NDArray[np.uint8]]  # camera -> (T, H, W, 3)
    ee_pose: Array  # (T, 3) measured [m]
    gripper: Array  # (T,) measured opening [0, 1]
    action: Array  # (T, 4) the expert's clean command: the label
    command: Array  # (T, 4) the command that was executed


class NoisyExpert:
    """The scripted expert of one episode: a clean answer for each tick, and the command that moves the arm.

    `noise` is the standard deviation added to each coordinate of the executed native action, before it is
    clipped to [-1, 1] (1 is one centimetre per tick; DART, Laskey et al. 2017). The gripper is never perturbed.
    """

    def __init__(self, arm: MetaworldArm, seed: int, noise: float = 0.0) -> None:
        self._arm, self._noise = arm, noise
        self._rng = np.random.default_rng([seed, int(noise * 1000)])

    def answer(self) -> tuple[Array, Array]:
        """(action, command), both absolute (4,), at the arm's present state; once for each tick."""
        action = self._arm.expert_command()
        command = action.copy()
        if self._noise > 0:
            native = self._arm.to_native(action)
            native[:3] += self._rng.normal(0.0, self._noise, 3)
            command = self._arm.to_command(native)
        return action, command


def demonstrate(
    arm: MetaworldArm, seed: int, noise: float = 0.0, max_steps: int = 300, keep_steps: int = 0
) -> Demonstration | None:
    """Run the expert on one seed; None when it does not succeed in `max_steps`.

    `noise`: see NoisyExpert. `keep_steps` ticks are recorded after the success.
    """
    expert = NoisyExpert(arm, seed, noise)
    observation = arm.reset(seed)
    seen: list[Observation] = []
    actions: list[Array] = []
    commands: list[Array] = []
    after_success = 0
    while len(seen) < max_steps and after_success <= keep_steps:
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
        images={camera: np.stack([o.images[camera] for o in seen]) for camera in arm.cameras},
        ee_pose=np.stack([o.ee_position_m for o in seen]),
        gripper=np.array([o.gripper for o in seen]),
        action=np.stack(actions),
        command=np.stack(commands),
    )
