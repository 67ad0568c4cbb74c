"""How people drive the arm: what the buttons mean, how fast it may go, and when it must stand still."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dp_ros.schema.base import Config, Vector3
from dp_ros.schema.serving import GateConfig

AxisIndex = Annotated[int, Field(ge=0, le=63)]
Direction = Annotated[int, Field(ge=-1, le=1)]
RestValue = Annotated[float, Field(ge=-1, le=1)]


class JoyLayout(Config):
    """What the axes and buttons of a Joy message mean; the defaults are an Xbox-like gamepad under `joy_node`.

    A left stick pushed forward moves along +y, to the right along +x: Metaworld's base frame as seen from the base.
    """

    axes: tuple[AxisIndex, AxisIndex, AxisIndex] = Field(
        (0, 1, 4), description="indices of the axes that move x, y and z: left stick, right stick up and down"
    )
    directions: tuple[Direction, Direction, Direction] = Field(
        (-1, 1, 1),
        description="1 where the axis moves x, y, z along, -1 against, 0 not at all; sticks: left is +",
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
    deadman_button: int = Field(5, ge=0, le=63, description="nothing moves unless it is held: right bumper")
    close_button: int = Field(0, ge=0, le=63, description="closes the gripper while it is held: A")
    open_button: int = Field(1, ge=0, le=63, description="opens the gripper while it is held: B")
    start_button: int = Field(7, ge=0, le=63, description="an episode begins: Start")
    success_button: int = Field(3, ge=0, le=63, description="the episode ends well: Y")
    failure_button: int = Field(2, ge=0, le=63, description="the episode ends badly, and is kept: X")
    discard_button: int = Field(6, ge=0, le=63, description="the episode is thrown away: Back")

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
        """The shortest `axes` that have all that is used."""
        return 1 + max(self.used_axes)

    @property
    def n_buttons(self) -> int:
        return 1 + max(self.used_buttons.values())

    @model_validator(mode="after")
    def _nothing_means_two_things(self) -> JoyLayout:
        if len(set(self.used_axes)) != len(self.used_axes):
            raise ValueError(f"axes {list(self.used_axes)}: one index moves two things, give each its own")
        owner: dict[int, str] = {}
        for name, index in self.used_buttons.items():
            if index in owner:
                raise ValueError(f"{name} and {owner[index]} are both {index}: give each a button of its own")
            owner[index] = name
        return self


class TeleopConfig(Config):
    """A person drives the arm: speeds, limits, and how old what they say and what the arm says may be."""

    layout: JoyLayout = JoyLayout()
    rate_hz: float = Field(80.0, gt=0, le=1000, description="commands in a second [Hz]")
    dead_zone: float = Field(
        0.1, ge=0, lt=1, description="share of an axis around its middle that counts as 0"
    )
    axis_speed_m_s: Vector3 = Field(
        (0.15, 0.15, 0.15), description="speed of x, y and z, each when its axis is pushed to the end [m/s]"
    )
    max_speed_m_s: float = Field(0.2, gt=0, description="highest speed of all three together [m/s]")
    max_acceleration_m_s2: float = Field(
        0.8,
        gt=0,
        description="fastest change of the speed while the arm is driven [m/s^2]; a stop is at once",
    )
    gripper_speed_per_s: float = Field(
        4.0, gt=0, description="change of the gripper command in a second, of its range of 2 [1/s]"
    )
    joy_timeout_s: float = Field(
        0.25, gt=0, description="hold when the newest Joy message is older, by its stamp [s]"
    )
    joy_frozen_s: float = Field(
        5.0,
        gt=0,
        description="hold when Joy asks for motion and has not changed for this time [s]: a gamepad that lost its "
        "connection may repeat its last state for ever",
    )
    debounce_s: float = Field(
        0.1, ge=0, description="a button of the episode that changes again within this time bounces [s]"
    )
    episode_gap_s: float = Field(
        0.5, gt=0, description="poses further apart than this: forget the last command, start anew [s]"
    )
    gate: GateConfig = GateConfig()

    @property
    def dt_s(self) -> float:
        return 1.0 / self.rate_hz

    @model_validator(mode="after")
    def _speeds_fit(self) -> TeleopConfig:
        if min(self.axis_speed_m_s) < 0:
            raise ValueError(
                f"axis_speed_m_s {list(self.axis_speed_m_s)} is negative: turn an axis around in layout.directions"
            )
        step_m = self.max_speed_m_s * self.dt_s
        if not step_m <= self.gate.max_step_m:
            raise ValueError(
                f"max_speed_m_s {self.max_speed_m_s:g} is {step_m:g} m in one tick, more than gate.max_step_m "
                f"{self.gate.max_step_m:g}: lower the speed or raise rate_hz"
            )
        return self


class KeyboardConfig(Config):
    """A terminal as a gamepad. Terminals tell of no key that is let go: a key counts as held for a while."""

    layout: JoyLayout = JoyLayout()
    rate_hz: float = Field(50.0, gt=0, le=200, description="Joy messages in a second [Hz]")
    first_hold_s: float = Field(
        0.5, gt=0, le=2, description="a key counts as held so long after it came for the first time [s]"
    )
    repeat_hold_s: float = Field(
        0.12, gt=0, le=2, description="and so long after it came again, by the terminal's repetition [s]"
    )
