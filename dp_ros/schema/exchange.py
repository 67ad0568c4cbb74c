"""Settings of export to LeRobot and import from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dp_ros.actions import ACTION_DIM, GRIPPER, POSITION, Range
from dp_ros.schema.base import CameraName, Config
from dp_ros.schema.pictures import MAX_SIDE_PX, PictureSizes, Size

Numbers = Annotated[
    str,
    Field(
        pattern=r"^[^:]+:[^:,]+(,[^:,]+)*$",
        description="FEATURE:NUMBERS, each by its index or its name, e.g. observation.state:0,1,2",
    ),
]


class ExportConfig(Config):
    """Export of a dataset to a LeRobotDataset."""

    task: str | None = Field(None, min_length=1, description="task in words; default: the dataset's own")
    robot: str | None = Field(None, min_length=1, description="LeRobot's robot_type")
    crf: int | None = Field(
        None,
        ge=1,
        le=51,
        description="lossy video that browsers play, best at 1; default: lossless",
    )


class ImportConfig(PictureSizes):
    """Import of a LeRobotDataset: the meaning of its numbers. The defaults are the names that export writes."""

    ee_position: Numbers = "observation.state:ee_x,ee_y,ee_z"
    gripper: Numbers = "observation.state:gripper"
    action: Numbers = Field("action:ee_x,ee_y,ee_z,gripper", description="absolute position [m], gripper")
    command: Numbers | None = Field(
        None, description="executed command; default: the exported one, or the action"
    )
    gripper_range: Range = Field((0, 1), description="measured values that mean closed and open")
    action_gripper_range: Range = Field((-1, 1), description="the action's values that mean open and close")
    cameras: tuple[CameraName, ...] = Field((), description="cameras by their names here; empty: all")
    width_px: int | None = Field(
        None, ge=16, le=MAX_SIDE_PX, description="width of the dataset's pictures; default: as stored"
    )
    height_px: int | None = Field(None, ge=16, le=MAX_SIDE_PX, description="height; give both or neither")

    @model_validator(mode="after")
    def _counts_match_the_layout(self) -> ImportConfig:
        sizes = {
            "ee_position": POSITION.size,
            "gripper": GRIPPER.size,
            "action": ACTION_DIM,
            "command": ACTION_DIM,
        }
        for name, count in sizes.items():
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

    def shared_size(self) -> Size | None:
        return (self.height_px, self.width_px) if self.height_px and self.width_px else None
