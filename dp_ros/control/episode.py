"""Result of one tick of the commander, and the state that an episode takes over from the one before."""

from __future__ import annotations

from dataclasses import dataclass

from dp_ros.control.chunk import Chunk
from dp_ros.control.safety import Array, Command, Verdict


@dataclass(frozen=True)
class Taken:
    """One command that was given, the verdict on it and the chunk as it is after it."""

    command: Command
    verdict: Verdict
    detail: str  # cause of a hold, for people
    chunk: Chunk | None
    is_silent: bool = False  # the command must not be published; it repeats the last published one


@dataclass(frozen=True)
class Inherited:
    """State before an episode that does not go on from the last command, as far as the episode depends on it."""

    gripper: float | None  # the last command
    orientation: Array | None  # (4,) of a tool that was turned too far
    silent_s: float
    asked_ns: int | None
    held: tuple[Verdict, int] | None  # the hold from which the arm recovers, and its time
    is_lost: bool  # the last command was void
