"""Gripper of a robot: joint, field and range of its measurements and its commands, live and in bags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dp_ros.actions import OPEN_TO_CLOSED, OPENING, Range
from dp_ros.schema.base import Config


class GripperState(Config):
    """Meaning of the messages on `gripper/state`."""

    gripper_joint: str = Field(
        "",
        description="joint of the gripper; messages without it are ignored; empty: the only joint, or `gripper`",
    )
    gripper_range: Range = Field(
        OPENING, description="positions on gripper/state that mean closed and open; others are refused"
    )

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> GripperState:
        _check_range("gripper_range", self.gripper_range)
        return self


class GripperCommands(Config):
    """Meaning of the messages on `command/gripper`."""

    command_gripper_joint: str = Field(
        "", description="joint of the gripper's commands, of the expert's too; empty: as for gripper_joint"
    )
    command_gripper_field: Literal["effort", "position"] = Field(
        "effort", description="field of the gripper's commands"
    )
    command_gripper_range: Range = Field(
        OPEN_TO_CLOSED, description="commanded values that mean open and closed"
    )

    @model_validator(mode="after")
    def _command_range_is_not_empty(self) -> GripperCommands:
        _check_range("command_gripper_range", self.command_gripper_range)
        return self


def _check_range(name: str, values: Range) -> None:
    if values[0] == values[1]:
        raise ValueError(f"{name} {values[0]:g}, {values[1]:g} is no range")
