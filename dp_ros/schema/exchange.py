"""How datasets go to other formats and come from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dp_ros.schema.base import CameraName, Config

Range = tuple[float, float]
Numbers = Annotated[
    str,
    Field(
        pattern=r"^[^:]+:[^:,]+(,[^:,]+)*$",
        description="FEATURE:NUMBERS, each by its index or its name, e.g. observation.state:0,1,2",
    ),
]


class ExportConfig(Config):
    """A dataset of ours to a LeRobotDataset."""

    task: str | None = Field(None, min_length=1, description="in words; without it the dataset's own")
    robot: str | None = Field(None, min_length=1, description="LeRobot's robot_type")
    crf: int | None = Field(
        None,
        ge=1,
        le=51,
        description="lossy video that browsers play, best at 1; without it no pixel is changed",
    )


class ImportConfig(Config):
    """A LeRobotDataset to one of ours: which of its numbers mean what. The defaults are the names we export."""

    ee_position: Numbers = "observation.state:ee_x,ee_y,ee_z"
    gripper: Numbers = "observation.state:gripper"
    action: Numbers = Field("action:ee_x,ee_y,ee_z,gripper", description="absolute position [m], gripper")
    command: Numbers | None = Field(
        None, description="what really moved the arm; without it what we exported as such, or the action"
    )
    gripper_range: Range = Field((0, 1), description="measured values that mean closed and open")
    action_gripper_range: Range = Field((-1, 1), description="the action's values that mean open and close")
    cameras: tuple[CameraName, ...] = Field((), description="by their names here; all when empty")
    width_px: int | None = Field(None, ge=16, le=640, description="pictures are shrunk to it")
    height_px: int | None = Field(None, ge=16, le=480)

    @model_validator(mode="after")
    def _takes_the_right_number_of_numbers(self) -> ImportConfig:
        for name, count in (("ee_position", 3), ("gripper", 1), ("action", 4), ("command", 4)):
            given = getattr(self, name)
            if given is not None and given.count(",") + 1 != count:
                raise ValueError(f"{name} '{given}' names {given.count(',') + 1} numbers, not {count}")
        for name in ("gripper_range", "action_gripper_range"):
            low, high = getattr(self, name)
            if low == high:
                raise ValueError(f"{name} {low:g},{high:g} is no range")
        if (self.width_px is None) != (self.height_px is None):
            raise ValueError("give both width_px and height_px, or neither")
        return self
