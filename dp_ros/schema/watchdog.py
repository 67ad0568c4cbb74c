"""Settings of the watchdog: a process that stops the arm when the policy's process dies or hangs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dp_ros.schema.base import Config


class WatchdogConfig(Config):
    """The watchdog beside the robot. It commands only after the heartbeat of an active policy has ended."""

    timeout_s: float = Field(
        0.07,
        ge=0.02,
        le=10,
        description="the policy is dead, or hangs, when its heartbeat is silent for longer: at least 3 periods of "
        "heartbeat_hz [s]",
    )
    action: Literal["hold", "twist"] = Field(
        "hold",
        description="hold: repeat the last command of the policy; twist: publish command/twist of 0",
    )
    rate_hz: float = Field(100.0, ge=1, le=1000, description="rate of its commands [Hz]")
    recovery: Literal["explicit", "automatic"] = Field(
        "explicit",
        description="explicit: it commands until watchdog/release is called; automatic: until the heartbeat is back "
        "for recover_s",
    )
    recover_s: float = Field(
        0.5, gt=0, le=60, description="time with a heartbeat after which the policy drives again [s]"
    )
    max_command_age_s: float = Field(
        0.25,
        gt=0,
        le=10,
        description="hold: the last command is not repeated where it is older than this at the last beat: the policy "
        "had a reason to be silent [s]",
    )
    max_distance_m: float = Field(
        0.1,
        ge=0,
        description="hold: nothing more is commanded once the arm is measured farther from the commands of the last "
        "0.25 s; 0: any [m]",
    )
    max_turn_rad: float = Field(
        0.5,
        gt=0,
        le=3.2,
        description="hold: nothing more is commanded once the tool is measured farther from the commanded orientation "
        "[rad]",
    )
    max_pose_age_s: float = Field(
        0.5,
        ge=0,
        le=60,
        description="hold: nothing more is commanded without a measured pose for longer, as a robot that restarts "
        "would leap; 0: never [s]",
    )
