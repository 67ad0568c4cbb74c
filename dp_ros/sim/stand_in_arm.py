"""The tiny arm as a robot with a driver of its own: faster ticks, commands of any distance, a drive to its start.

It is no task for an evaluation, so it is not in the registry: `dp_ros stand-in` publishes it as a robot.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dp_ros.actions import POSITION, join
from dp_ros.sim.arm import ArmSpec, Array
from dp_ros.sim.tiny_arm import HAND_M, OPEN_M, TinyArm

CAMERA = "gripperPOV"  # of the hand
SPEED_M_S = 0.25
_ARRIVED_M = 0.003


class StandInArm(TinyArm):
    """The tiny arm with a tool tilted by 30 degrees, in ticks of 8 ms.

    Its target moves to the command in a straight line, at `SPEED_M_S` at most. Without a command it stays.
    """

    rate_hz: ClassVar[float] = 125.0
    max_step_m: ClassVar[float] = SPEED_M_S / rate_hz
    substeps: ClassVar[int] = 2

    def __init__(self, width_px: int, height_px: int) -> None:
        """Size of the pictures that are drawn of its camera."""
        super().__init__(ArmSpec("tiny-push-tilt30", (CAMERA,), width_px, height_px))
        self._gripper = -1.0
        self._home: int | None = None  # seed of the start that it drives to
        self._spread = 1.0
        self.reset(0)

    @property
    def is_homing(self) -> bool:
        return self._home is not None

    def start(self, seed: int) -> tuple[Array, Array]:
        hand_m, block_m = super().start(seed)
        return HAND_M + self._spread * (hand_m - HAND_M), block_m

    def put_back(self, seed: int, spread: float = 1.0) -> None:
        """Drive to the start of `seed` with the gripper open; the block is put back when the arm is there.

        spread: of the starts, in the tiny arm's own.
        """
        self._home, self._spread = seed, spread

    def tick(self, position_m: Array | None, gripper: float | None) -> None:
        """One tick towards a finite position (3,) and a gripper command; None: it stays as it is.

        A drive to the start ignores commands.
        """
        if self._home is not None:
            position_m, gripper = self.start(self._home)[0], -1.0
        if gripper is not None:
            self._gripper = gripper
        target_m = self.target_m
        if position_m is not None:
            way_m = position_m - target_m
            far = float(np.linalg.norm(way_m)) / self.max_step_m
            target_m = position_m if far <= 1.0 else target_m + way_m / far
        self.advance(join(target_m, self._gripper))
        if self._home is not None and self._is_at(self.start(self._home)[0]):
            self.reset(self._home)
            self._home = None

    @property
    def finger_m(self) -> float:
        """Width between the fingers."""
        return 2.0 * OPEN_M * self.measure()[1]

    def _is_at(self, position_m: Array) -> bool:
        measured_m = POSITION.of(self.measure()[0])
        return bool(
            np.array_equal(self.target_m, np.clip(position_m, *self.target_bounds_m))
            and np.linalg.norm(measured_m - position_m) < _ARRIVED_M
        )
