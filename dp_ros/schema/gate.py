"""Settings of the safety gate: limits in SI units, so that they mean the same at every control rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dp_ros.schema.base import Config, Vector3

REPLACED = "max_step_m"  # a limit per tick, of older parameter files

# Limits of which a larger value allows more. 0 switches each of them off, where 0 is a valid value; but see `_size`.
_LARGER_IS_LOOSER = (
    "max_speed_m_s",
    "path_tolerance_m",
    "max_acceleration_m_s2",
    "max_turn_rad",
    "max_gripper_rate_per_s",
    "max_obs_age_s",
    "max_skew_s",
    "max_pose_age_s",
    "max_chunk_age_s",
    "max_distance_m",
    "max_frozen_s",
    "max_wall_s",
    "max_outside_m",
    "max_ood_score",
)
_SMALLER_IS_LOOSER = ("ramp_s", "recover_s")


def replaced_step(step_m: Any, rate_hz: float | None = None) -> str:
    """Message that names the limit in SI units which replaces `max_step_m`, a limit per tick."""
    hz = rate_hz or 80.0
    line = f"{REPLACED} is a limit per tick and was replaced by max_speed_m_s [m/s]"
    if not isinstance(step_m, int | float):
        return f"{line}: give the step times the control rate"
    at = "at this rate of" if rate_hz else "at a rate of"
    return f"{line}: {step_m:g} m in a tick is {step_m * hz:g} m/s {at} {hz:g} Hz; give max_speed_m_s: {step_m * hz:g}"


class CommandLimits(Config):
    """Limits of every command, of a policy and of a person. Where a limit cannot be checked, the arm holds."""

    workspace_low_m: Vector3 = Field(
        (-0.5, 0.3, 0.0), description="lowest commanded position, base frame [m]"
    )
    workspace_high_m: Vector3 = Field(
        (0.5, 1.0, 0.6), description="highest commanded position, base frame [m]"
    )
    max_outside_m: float = Field(
        0.02, ge=0, le=0.2, description="an episode may begin with the arm this far outside the workspace [m]"
    )
    max_speed_m_s: float = Field(1.6, gt=0, description="highest speed of the command [m/s]")
    max_turn_rad: float = Field(
        0.5, gt=0, le=3.2, description="largest angle from the measured to the commanded orientation [rad]"
    )
    max_obs_age_s: float = Field(0.1, gt=0, description="oldest observation a command may answer [s]")
    max_pose_age_s: float = Field(
        0.5,
        ge=0,
        description="without a measured pose for longer nothing is commanded, as a robot that restarts would leap; 0: "
        "never [s]",
    )
    max_distance_m: float = Field(
        0.1,
        ge=0,
        description="longest distance from the measured position to the commands of the last 0.25 s; beyond it the arm "
        "is stuck or does not obey: the command goes back to it, or nothing is commanded; 0: any [m]",
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_were_replaced(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and REPLACED in data:
            raise ValueError(replaced_step(data[REPLACED]))
        return data

    @model_validator(mode="after")
    def _box_is_not_empty(self) -> Self:
        for low, high, axis in zip(self.workspace_low_m, self.workspace_high_m, "xyz", strict=True):
            if not low < high:
                raise ValueError(f"workspace {axis}: low {low} is not below high {high}")
        return self


class GateConfig(CommandLimits):
    """Limits of a policy's commands. A running node takes tighter ones; looser ones while it is inactive."""

    changes_at_run_time: ClassVar[bool | tuple[str, ...]] = True

    max_speed_m_s: float = Field(5.0, gt=0, description="highest speed of the command [m/s]")
    max_wall_s: float = Field(
        2.0, ge=0, description="hold when the plan leads out of the workspace for longer; 0: never [s]"
    )
    max_acceleration_m_s2: float = Field(
        0.0, ge=0, description="fastest change of its velocity, also of a stop, at least 0.01; 0: any [m/s^2]"
    )
    max_jerk_m_s3: float = Field(
        0.0,
        ge=0,
        description="fastest change of its acceleration, at least 0.1; 0: any; needs max_acceleration_m_s2 [m/s^3]",
    )
    slowing: Literal["path", "axes"] = Field(
        "path",
        description="where a limit bites. path: the chunk is slowed along its own path; axes: each axis is clipped and "
        "the chunk goes on by the clock, for comparison only",
    )
    path_tolerance_m: float = Field(
        0.01,
        ge=0,
        description="with max_acceleration_m_s2: by how much a chunk that turns faster than the limits allow is "
        "smoothed, at most; 0: the arm goes through each action, however slowly [m]",
    )
    ramp_s: float = Field(
        0.0, ge=0, description="time in which max_speed_m_s rises from 0 when motion begins [s]"
    )
    gripper_low: float = Field(
        -1.0, ge=-1, le=1, description="lowest gripper command, of -1 open to 1 closed"
    )
    gripper_high: float = Field(
        1.0, ge=-1, le=1, description="highest gripper command, of -1 open to 1 closed"
    )
    max_gripper_rate_per_s: float = Field(
        0.0, ge=0, description="fastest change of the gripper command, whose range is 2; 0: any [1/s]"
    )
    max_skew_s: float = Field(
        0.1, ge=0, description="longest time between a picture and the pose of one frame; 0: any [s]"
    )
    max_chunk_age_s: float = Field(
        1.5, ge=0, description="oldest newest frame of the chunk in use; 0: any [s]"
    )
    max_frozen_s: float = Field(
        0.5,
        ge=0,
        description="hold when the pictures of a camera, or the poses, are the same for longer while the command "
        "moves; 0: never [s]",
    )
    max_ood_score: float = Field(
        0.0,
        ge=0,
        description="hold while the pictures of two plans in a row are unlike those of the training by a higher score, "
        "of which 1 is that of the most unusual pictures of the demonstrations; 0: never",
    )
    recover_s: float = Field(
        0.0, ge=0, description="time without any cause to hold after which motion begins again [s]"
    )

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> GateConfig:
        if not self.gripper_low < self.gripper_high:
            raise ValueError(f"gripper_low {self.gripper_low} is not below gripper_high {self.gripper_high}")
        for name, least in (("max_acceleration_m_s2", 0.01), ("max_jerk_m_s3", 0.1)):
            if 0.0 < getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name):g} is below {least:g}; 0: no limit")
        if self.max_jerk_m_s3 and not self.max_acceleration_m_s2:
            raise ValueError(
                f"max_jerk_m_s3 {self.max_jerk_m_s3:g} needs max_acceleration_m_s2, which is 0 (any)"
            )
        return self

    def loosened(self, new: GateConfig) -> list[str]:
        """Names of the limits that `new` loosens, or changes in a way that has no order."""
        loose = [name for name in _LARGER_IS_LOOSER if _size(self, name) < _size(new, name)]
        loose += [name for name in _SMALLER_IS_LOOSER if getattr(new, name) < getattr(self, name)]
        if any(a > b for a, b in zip(self.workspace_low_m, new.workspace_low_m, strict=True)):
            loose.append("workspace_low_m")
        if any(a < b for a, b in zip(self.workspace_high_m, new.workspace_high_m, strict=True)):
            loose.append("workspace_high_m")
        loose += ["gripper_low"] if new.gripper_low < self.gripper_low else []
        loose += ["gripper_high"] if new.gripper_high > self.gripper_high else []
        # With less jerk, an arm that accelerates goes on accelerating for longer.
        changed = ("slowing", "max_jerk_m_s3")
        return loose + [name for name in changed if getattr(new, name) != getattr(self, name)]


def _size(config: GateConfig, name: str) -> float:
    """The limit, infinite where it is off. 0 is a limit of `max_outside_m` and `path_tolerance_m`."""
    value = float(getattr(config, name))
    return value if value or name in ("max_outside_m", "path_tolerance_m") else float("inf")
