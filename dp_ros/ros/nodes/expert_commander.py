"""The scripted expert over topics: its clean answers on `expert/...`, what moves the arm on `command/...`.

The arm is driven through the same topics, and by the same messages, as by a policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from dp_ros.actions import POSITION, gripper_of
from dp_ros.control.safety import Command
from dp_ros.ros.messages.commands import command_to_messages
from dp_ros.ros.node import qos
from dp_ros.schema import BridgeConfig
from dp_ros.sim.experts import NoisyExpert
from dp_ros.sim.metaworld_arm import MetaworldArm


class ExpertCommander:
    """Answers each observation once; asked again for the same tick, it says the same again."""

    def __init__(self, config: BridgeConfig, frame_id: str, publisher: Callable[..., Any]) -> None:
        """`publisher(kind, topic, qos)` makes one."""
        self._config, self._frame_id = config, frame_id
        self._publishers = [
            (
                publisher(PoseStamped, f"{name}/ee_pose", qos.RELIABLE),
                publisher(JointState, f"{name}/gripper", qos.RELIABLE),
            )
            for name in ("expert", "command")
        ]
        self._arm: MetaworldArm | None = None

    @property
    def publishers(self) -> list[Any]:
        return [publisher for pair in self._publishers for publisher in pair]

    def begin(self, arm: MetaworldArm, seed: int, orientation: NDArray[Any]) -> None:
        """Start the episode that `seed` stands for; the arm has been reset to it."""
        noise = self._config.noise[(seed - self._config.first_seed) % len(self._config.noise)]
        self._arm, self._expert, self._orientation = arm, NoisyExpert(arm, seed, noise), orientation
        self._answered = -1
        self._answer: tuple[NDArray[Any], ...] = ()

    def command(self, stamp_ns: int) -> None:
        """Publish answer and command for the observation stamped `stamp_ns`."""
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
