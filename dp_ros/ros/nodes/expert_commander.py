"""The scripted expert as a commander: clean labels on `expert/...`, and on `command/...` what moves the arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from dp_ros.actions import POSITION, gripper_of
from dp_ros.control.safety import Command
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos
from dp_ros.schema import BridgeConfig
from dp_ros.sim.arm import Array, SimulatedArm
from dp_ros.sim.experts import NoisyExpert


class ExpertCommander:
    """Publisher of the expert's label and command for each observation, by the messages that a policy would send.

    The messages of one tick may be published several times; they are computed once.
    """

    def __init__(self, config: BridgeConfig, frame_id: str, publisher: Callable[..., Any]) -> None:
        """`publisher(kind, topic, qos)` makes a publisher."""
        self._config, self._frame_id = config, frame_id
        self._publishers = [
            (
                publisher(PoseStamped, f"{name}/ee_pose", qos.RELIABLE),
                publisher(JointState, f"{name}/gripper", qos.RELIABLE),
            )
            for name in ("expert", "command")
        ]
        self._arm: SimulatedArm | None = None

    @property
    def publishers(self) -> list[Any]:
        return [publisher for pair in self._publishers for publisher in pair]

    def begin(self, arm: SimulatedArm, seed: int, orientation: Array) -> None:
        """Begin the episode of `seed`, to which the arm has been reset; `orientation` (4,) is kept in all commands."""
        noise = self._config.noise[(seed - self._config.first_seed) % len(self._config.noise)]
        self._arm, self._expert, self._orientation = arm, NoisyExpert(arm, seed, noise), orientation
        self._answered = -1
        self._answer: tuple[Array, ...] = ()

    def command(self, stamp_ns: int) -> None:
        """Publish label and command for the observation stamped `stamp_ns`."""
        if self._arm is None:
            return
        if self._answered != self._arm.steps:
            self._answered, self._answer = self._arm.steps, self._expert.answer()
        for publishers, action in zip(self._publishers, self._answer, strict=True):
            gripper = float(gripper_of(action))
            command = Command(stamp_ns, POSITION.of(action), gripper, self._orientation)
            messages = command_to_messages(command, self._frame_id)
            for publisher, message in zip(publishers, messages, strict=True):
                publisher.publish(message)
