"""Commands as messages: a pose and a gripper command with one stamp."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from dp_ros.actions import OPEN_TO_CLOSED, join, to_range
from dp_ros.control.safety import Command
from dp_ros.ros.messages.conversions import (
    effort_to_joint_state,
    joint_state_to_effort,
    pose_to_position,
    position_to_pose,
    stamp_to_ns,
)
from dp_ros.schema.gripper import GripperCommands

OUR_GRIPPER = GripperCommands()
_WAITING = 32


def command_to_messages(
    command: Command, frame_id: str, gripper: GripperCommands = OUR_GRIPPER
) -> tuple[PoseStamped, JointState]:
    """The two messages of `command`, with one stamp. Where no gripper is commanded, the second has no value.

    gripper: joint, field and range of the second message.

    Publish a message without a value only in lockstep, where the simulated robot waits for both: a real gripper's
    driver may read the first effort without looking.
    """
    pose = position_to_pose(command.position_m, command.orientation, command.stamp_ns, frame_id)
    return pose, gripper_to_joint_state(command.gripper, command.stamp_ns, gripper)


def gripper_to_joint_state(value: float | None, stamp_ns: int, gripper: GripperCommands) -> JointState:
    """Gripper command in [-1 open, 1 closed] -> JointState of the robot; without a value for None.

    ConversionError outside of the range.
    """
    joint = gripper.command_gripper_joint or "gripper"
    message = effort_to_joint_state(value, stamp_ns, joint)
    if value is not None and gripper != OUR_GRIPPER:
        message.effort = []
        in_range = float(to_range(value, OPEN_TO_CLOSED, gripper.command_gripper_range))
        setattr(message, gripper.command_gripper_field, [in_range])
    return message


class CommandPairing:
    """Pairing of the two messages by stamp, in any order of arrival; calls back once per pair."""

    def __init__(
        self,
        on_command: Callable[[int, NDArray[np.float64]], None],
        is_wanted: Callable[[int], bool] = lambda stamp_ns: True,
    ) -> None:
        """`on_command(stamp_ns, action (4,))`; the action's gripper is NaN where none is commanded.

        Messages whose stamp is not wanted when they arrive are dropped. Otherwise half of a lost command could be
        paired with half of a later one.
        """
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
            self._efforts[stamp_ns] = joint_state_to_effort(msg) if msg.effort else np.nan
            self._match(stamp_ns)

    def _match(self, stamp_ns: int) -> None:
        if stamp_ns in self._positions and stamp_ns in self._efforts:
            self._on_command(stamp_ns, join(self._positions.pop(stamp_ns), self._efforts.pop(stamp_ns)))
        for waiting in (self._positions, self._efforts):
            while len(waiting) > _WAITING:
                waiting.popitem(last=False)
