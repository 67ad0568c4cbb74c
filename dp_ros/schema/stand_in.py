"""Settings of the stand-in robot."""

from __future__ import annotations

from pydantic import Field

from dp_ros.schema.base import Config


class StandInConfig(Config):
    """A small simulated arm that behaves as a robot with drivers of its own, and its scripted demonstrations."""

    demonstrations: int = Field(
        0,
        ge=0,
        le=10_000,
        description="demonstrations that it gives to a recorder, then it waits for commands",
    )
    first_seed: int = Field(
        0, ge=0, description="seed of the first start of arm and block; each start takes the next number"
    )
    command_rate_hz: float = Field(
        50.0, ge=5, le=100, description="commands a second in its demonstrations [Hz]"
    )
    command_timeout_s: float = Field(
        0.2, gt=0, le=5, description="it stops where it is when no command comes for longer [s]"
    )
