"""Settings of teleoperation: layout of the gamepad, speeds, and reasons to hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dp_ros.schema.base import Config, Vector3
from dp_ros.schema.gate import CommandLimits
from dp_ros.schema.gripper import GripperState

AxisIndex = Annotated[int, Field(ge=0, le=63)]
Direction = Annotated[int, Field(ge=-1, le=1)]
RestValue = Annotated[float, Field(ge=-1, le=1)]


class JoyLayout(Config):
    """Meaning of the axes and buttons of a Joy message; the defaults fit an Xbox-like gamepad of `joy_node`.

    The left stick moves the arm along +y when pushed forward and along +x when pushed to the right. This is
    Metaworld's base frame as seen from the base.
    """

    axes: tuple[AxisIndex, AxisIndex, AxisIndex] = Field(
        (0, 1, 4), description="indices of the axes that move x, y and z: left stick, right stick up and down"
    )
    directions: tuple[Direction, Direction, Direction] = Field(
        (-1, 1, 1),
        description="sign of the motion along x, y, z: 1, -1, or 0 for none; a stick is + to the left and forward",
    )
    axes_rest: tuple[RestValue, RestValue, RestValue] = Field(
        (0.0, 0.0, 0.0),
        description="values of the axes that move x, y and z at rest: 0 sticks, 1 or -1 triggers",
    )
    gripper_axis: int = Field(
        -1, ge=-1, le=63, description="index of an axis that closes (+) and opens (-) the gripper; -1: none"
    )
    gripper_direction: Direction = Field(
        1, description="1 where the axis closes with +, -1 where it closes with -"
    )
    gripper_rest: RestValue = Field(
        0.0, description="value of the gripper's axis at rest: 0 stick, 1 or -1 trigger"
    )
    deadman_button: int = Field(
        5, ge=0, le=63, description="the arm moves only while it is held: right bumper"
    )
    close_button: int = Field(0, ge=0, le=63, description="closes the gripper while it is held: A")
    open_button: int = Field(1, ge=0, le=63, description="opens the gripper while it is held: B")
    start_button: int = Field(7, ge=0, le=63, description="begins an episode: Start")
    success_button: int = Field(3, ge=0, le=63, description="ends the episode as a success: Y")
    failure_button: int = Field(2, ge=0, le=63, description="ends the episode as a failure, which is kept: X")
    discard_button: int = Field(6, ge=0, le=63, description="ends the episode and discards it: Back")

    @property
    def used_axes(self) -> tuple[int, ...]:
        return self.axes if self.gripper_axis < 0 else (*self.axes, self.gripper_axis)

    @property
    def rest(self) -> tuple[float, ...]:
        """Rest value of each of `used_axes`."""
        return self.axes_rest if self.gripper_axis < 0 else (*self.axes_rest, self.gripper_rest)

    @property
    def signs(self) -> tuple[int, ...]:
        """Direction of each of `used_axes`."""
        return self.directions if self.gripper_axis < 0 else (*self.directions, self.gripper_direction)

    @property
    def used_buttons(self) -> dict[str, int]:
        """Every field that ends in `_button`, by name."""
        return {name: index for name, index in self if name.endswith("_button")}

    @property
    def n_axes(self) -> int:
        """Least length of a message's `axes`."""
        return 1 + max(self.used_axes)

    @property
    def n_buttons(self) -> int:
        """Least length of a message's `buttons`."""
        return 1 + max(self.used_buttons.values())

    @model_validator(mode="after")
    def _indices_differ(self) -> JoyLayout:
        if len(set(self.used_axes)) != len(self.used_axes):
            raise ValueError(f"axes {list(self.used_axes)}: an index is used twice: give each axis its own")
        owner: dict[int, str] = {}
        for name, index in self.used_buttons.items():
            if index in owner:
                raise ValueError(f"{name} and {owner[index]} are both {index}: give each a button of its own")
            owner[index] = name
        return self


class TeleopConfig(GripperState):
    """Teleoperation: speeds, limits, and the ages at which inputs are too old."""

    layout: JoyLayout = JoyLayout()
    rate_hz: float = Field(80.0, gt=0, le=1000, description="commands per second [Hz]")
    dead_zone: float = Field(0.1, ge=0, lt=1, description="share of an axis around its rest that counts as 0")
    axis_speed_m_s: Vector3 = Field(
        (0.15, 0.15, 0.15), description="speed along x, y and z at full deflection of the axis [m/s]"
    )
    max_speed_m_s: float = Field(0.2, gt=0, description="highest speed, all three axes together [m/s]")
    max_acceleration_m_s2: float = Field(
        0.8,
        gt=0,
        description="fastest change of speed while the arm moves [m/s^2]; a stop is immediate",
    )
    gripper_speed_per_s: float = Field(
        4.0, gt=0, description="change of the gripper command, whose range is 2, per second [1/s]"
    )
    joy_timeout_s: float = Field(
        0.25, gt=0, description="hold when the newest Joy message is older, by its stamp [s]"
    )
    joy_frozen_s: float = Field(
        5.0,
        gt=0,
        description="hold when Joy commands motion and has not changed for this time [s]: a gamepad that lost its "
        "connection may repeat its last state for ever",
    )
    debounce_s: float = Field(
        0.1,
        ge=0,
        description="an episode button that changes again within this time is ignored as a bounce [s]",
    )
    episode_gap_s: float = Field(
        0.5, gt=0, description="after a gap between poses longer than this, the last command is forgotten [s]"
    )
    gate: CommandLimits = CommandLimits()

    @property
    def dt_s(self) -> float:
        return 1.0 / self.rate_hz

    @model_validator(mode="after")
    def _speeds_fit(self) -> TeleopConfig:
        if min(self.axis_speed_m_s) < 0:
            raise ValueError(
                f"axis_speed_m_s {list(self.axis_speed_m_s)} is negative: reverse an axis in layout.directions"
            )
        if not self.max_speed_m_s <= self.gate.max_speed_m_s:
            raise ValueError(
                f"max_speed_m_s {self.max_speed_m_s:g} is more than gate.max_speed_m_s {self.gate.max_speed_m_s:g}: "
                "lower the speed"
            )
        return self


class KeyboardConfig(Config):
    """Keyboard of a terminal as a gamepad. Terminals report no release, so a key counts as held for a time."""

    layout: JoyLayout = JoyLayout()
    rate_hz: float = Field(50.0, gt=0, le=200, description="Joy messages per second [Hz]")
    first_hold_s: float = Field(
        0.5, gt=0, le=2, description="time that a key counts as held after its first character [s]"
    )
    repeat_hold_s: float = Field(
        0.12, gt=0, le=2, description="time that a key counts as held after each repeated character [s]"
    )
