"""A command is two messages, pose and gripper, that bear one stamp."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from dp_ros.control.safety import Command
from dp_ros.ros.messages.conversions import (
    effort_to_joint_state,
    joint_state_to_effort,
    pose_to_position,
    position_to_pose,
    stamp_to_ns,
)

GRIPPER_DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # x, y, z, w: tool axis along -z
_WAITING = 32


def command_to_messages(command: Command, frame_id: str) -> tuple[PoseStamped, JointState]:
    """The two messages of `command`, stamped alike."""
    pose = position_to_pose(command.position_m, GRIPPER_DOWN, command.stamp_ns, frame_id)
    return pose, effort_to_joint_state(command.gripper, command.stamp_ns)


class CommandPairing:
    """Pairs the two messages by stamp, in whatever order they arrive; calls back once per pair."""

    def __init__(
        self,
        on_command: Callable[[int, NDArray[np.float64]], None],
        is_wanted: Callable[[int], bool] = lambda stamp_ns: True,
    ) -> None:
        """`on_command(stamp_ns, (x, y, z [m], gripper))`. Messages whose stamp is not wanted when they arrive are
        dropped: what lost its other half must not wait for that of a later command."""
        self._on_command, self._is_wanted = on_command, is_wanted
        self._positions: OrderedDict[int, NDArray[np.float64]] = OrderedDict()
        self._efforts: OrderedDict[int, float] = OrderedDict()

    def pose(self, msg: PoseStamped) -> None:
        stamp_ns = stamp_to_ns(msg.header.stamp)
        if self._is_wanted(stamp_ns):
            self._positions[stamp_ns] = pose_to_position(msg)
            self._match(stamp_ns)

    def gripper(self, msg: JointState) -> None:
        stamp_ns = stamp_to_ns(msg.header.stamp)
        if self._is_wanted(stamp_ns):
            self._efforts[stamp_ns] = joint_state_to_effort(msg)
            self._match(stamp_ns)

    def _match(self, stamp_ns: int) -> None:
        if stamp_ns in self._positions and stamp_ns in self._efforts:
            command = np.append(self._positions.pop(stamp_ns), self._efforts.pop(stamp_ns))
            self._on_command(stamp_ns, command)
        for waiting in (self._positions, self._efforts):
            while len(waiting) > _WAITING:
                waiting.popitem(last=False)
