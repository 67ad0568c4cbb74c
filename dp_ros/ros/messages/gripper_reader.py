"""Readers of gripper states and gripper commands in the robot's own joint, field and range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dp_ros.actions import OPEN_TO_CLOSED, OPENING, Range, to_range
from dp_ros.errors import shown
from dp_ros.ros.messages.conversions import ConversionError, joint_index

_FIELDS = ("effort", "position", "velocity")


class GripperReader:
    """Reads openings, from 0 (closed) to 1 (open), out of JointState messages.

    joint: name of the gripper's joint; messages without it are not the gripper's. Empty: the only position, or that of
    the joint `gripper`, which must always be the same joint: from the first message of another one on, all are refused,
    because nobody can tell which is the gripper. values: positions that mean closed and open.
    """

    def __init__(self, joint: str = "", values: Range = OPENING) -> None:
        self._joint, self._values = joint, values
        self.clear()

    def clear(self) -> None:
        """Forget the joint that was read, and that there was another one."""
        self._found: str | None = None
        self._ambiguous = ""

    def read(self, msg: Any) -> float | None:
        """The opening; None for a message of other joints. ConversionError where it cannot be used."""
        names = list(msg.name)
        if self._joint and self._joint not in names:
            return None
        if self._ambiguous:
            raise ConversionError(self._ambiguous)
        try:
            index = joint_index(msg, self._joint, "position")
            if not self._joint and names:
                self._check_same(names[index])
        except ConversionError as error:
            is_of_another = len(msg.position) and (self._found or "gripper") not in names
            self._ambiguous = str(error) if is_of_another and not self._joint else ""
            raise
        return _in_range(float(msg.position[index]), self._values, OPENING, "position", "gripper_range")

    def _check_same(self, joint: str) -> None:
        self._found = joint if self._found is None else self._found
        if joint != self._found:
            raise ConversionError(
                f"holds joint '{shown(joint)}', before it was '{self._found}': name the gripper's with gripper_joint"
            )


class GripperCommandReader:
    """Reads gripper commands, from -1 (open) to 1 (closed), out of JointState or Float64 messages.

    joint: as for `GripperReader`, of the commands. field: of a JointState. values: those that mean open and closed.
    """

    def __init__(self, joint: str = "", field: str = "effort", values: Range = OPEN_TO_CLOSED) -> None:
        self._joint, self._field, self._values = joint, field, values

    def is_of_gripper(self, msg: Any) -> bool:
        """False for a JointState of other joints."""
        return not self._joint or not hasattr(msg, "name") or self._joint in msg.name

    def read(self, msg: Any) -> float | None:
        """The command; None where the gripper is not commanded. ConversionError where the message cannot be used."""
        if not hasattr(msg, "name"):
            value = float(msg.data)
        elif len(getattr(msg, self._field)):
            value = _value(msg, self._field, self._joint)
        else:
            if others := [field for field in _FIELDS if len(getattr(msg, field))]:
                raise ConversionError(
                    f"holds {' and '.join(others)}, no {self._field}: set command_gripper_field and "
                    "command_gripper_range"
                )
            return None
        return _in_range(value, self._values, OPEN_TO_CLOSED, self._field, "command_gripper_range")


def _value(msg: Any, field: str, joint: str) -> float:
    return float(getattr(msg, field)[joint_index(msg, joint, field)])


def _in_range(value: float, given: Range, ours: Range, what: str, setting: str) -> float:
    if not math.isfinite(value):
        raise ConversionError(f"{what} {value} is not finite")
    try:
        return float(to_range(value, given, ours))
    except ValueError as error:
        raise ConversionError(
            f"{what} {error}: give the values that mean {_ends(ours)} with {setting}"
        ) from None


def _ends(ours: Sequence[float]) -> str:
    return "closed and open" if ours == OPENING else "open and closed"
