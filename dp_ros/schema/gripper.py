"""Measured gripper: its joint and its range, live and in bags."""

from __future__ import annotations

from pydantic import Field, model_validator

from dp_ros.actions import OPENING, Range
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
    def _ranges_are_not_empty(self) -> GripperState:
        for name, values in self:
            if name.endswith("gripper_range") and values[0] == values[1]:
                raise ValueError(f"{name} {values[0]:g}, {values[1]:g} is no range")
        return self
