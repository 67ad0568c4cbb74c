"""Commands between the ticks of a policy, at the robot's own rate: a velocity-continuous curve through its actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Point, point
from dp_ros.control.safety import Array
from dp_ros.schema import ConfigError, GateConfig, PolicyConfig, RuntimeConfig


def commands_per_tick(policy: PolicyConfig, runtime: RuntimeConfig) -> int:
    """Number of commands in one tick of the policy; 1: none in between. ConfigError where the rate is below its own.

    `command_rate_hz` is rounded to a multiple of the policy's rate, so that commands are evenly spaced.
    """
    rate_hz = runtime.command_rate_hz
    if not rate_hz or runtime.mode == "lockstep":
        return 1
    if not rate_hz >= policy.rate_hz:
        raise ConfigError(
            f"command_rate_hz {rate_hz:g} is below the policy's rate {policy.rate_hz:g}: give at least that, or 0"
        )
    return round(rate_hz / policy.rate_hz)


@dataclass(frozen=True)
class Segment:
    """Cubic Hermite curve over one tick. Slopes are in metres a tick."""

    begin_ns: int
    dt_ns: int
    start_m: Array  # (3,)
    start_slope_m: Array
    end_m: Array
    end_slope_m: Array

    def at(self, now_ns: float) -> tuple[Array, Array]:
        """Position and slope; after the end those of the end."""
        u = min(max((now_ns - self.begin_ns) / self.dt_ns, 0.0), 1.0)
        way_m = self.end_m - self.start_m
        a = self.start_slope_m - way_m
        b = way_m - self.end_slope_m
        position = self.start_m + u * way_m + u * (1 - u) * ((1 - u) * a + u * b)
        slope = way_m + (1 - u) * (1 - 3 * u) * a + u * (2 - 3 * u) * b
        return position, slope


def pchip_slope(before: Array, after: Array) -> Array:
    """Slope at a knot between two steps: their harmonic mean, 0 where they differ in sign (Fritsch & Butland 1984).

    With it, a curve is monotone between its knots: it never leaves the box that they span.
    """
    product = before * after
    same = product > 0
    total = np.where(same, before + after, 1.0)
    return np.where(same, 2.0 * product / total, 0.0)


class Interpolator:
    """The curve of one episode.

    From tick to tick the curve goes from where it is, with its velocity, to the next action of the chunk in use; so it
    passes through each action at its time. A new chunk changes only the end of the next piece, so neither position nor
    velocity jumps. It begins at rest. Where no action follows, it ends at rest. Where a limit bites, the commands go
    along the curve more slowly.
    """

    def __init__(self, dt_ns: int) -> None:
        self._dt_ns = dt_ns
        self.clear()

    def clear(self) -> None:
        """Stop: the next curve begins at rest."""
        self._segment: Segment | None = None
        self._reached_ns = 0  # time of the curve that the last command has reached
        self._clock_ns = 0  # time of the last command

    @property
    def is_at_rest(self) -> bool:
        return self._segment is None

    def path(self, now_ns: int) -> Callable[[float], Point]:
        """The way from the last command to what is due now: share of the way, 0 to 1 -> position."""
        segment, reached_ns, due_ns = self._segment, self._reached_ns, now_ns - self._clock_ns
        assert segment is not None
        return lambda share: point(segment.at(reached_ns + share * due_ns)[0])

    def follow(self, share: float, now_ns: int) -> float:
        """Take a command at that share of the way; the ticks by which the curve falls behind the clock."""
        due_ns = now_ns - self._clock_ns
        self._reached_ns, self._clock_ns = self._reached_ns + round(share * due_ns), now_ns
        return (1.0 - share) * due_ns / self._dt_ns

    def lead(self, now_ns: int, chunk: Chunk, position_m: Array, due_m: Array, gate: GateConfig) -> None:
        """At a tick: the next piece, from the present command to the chunk's next action; else to `due_m`, for now."""
        slope_m = np.zeros(POSITION.size)
        if self._segment is not None:
            slope_m = self._segment.at(self._reached_ns)[1]
        end_m = self._next(position_m, chunk.at(now_ns + self._dt_ns), due_m, gate)
        after_m = self._next(end_m, chunk.at(now_ns + 2 * self._dt_ns), end_m, gate)
        end_slope_m = pchip_slope(end_m - position_m, after_m - end_m)
        self._segment = Segment(now_ns, self._dt_ns, position_m, slope_m, end_m, end_slope_m)
        self._reached_ns = self._clock_ns = now_ns

    def _next(self, from_m: Array, action: Array | None, otherwise_m: Array, gate: GateConfig) -> Array:
        """Position of an action inside the box, else `otherwise_m`. Clipped per axis: as far as a tick reaches."""
        wanted_m = otherwise_m if action is None or not np.isfinite(action).all() else POSITION.of(action)
        way_m = np.clip(wanted_m, gate.workspace_low_m, gate.workspace_high_m) - from_m
        if gate.slowing == "axes":
            longest_m = gate.max_speed_m_s * self._dt_ns / 1e9
            way_m = way_m * min(1.0, longest_m / max(float(np.linalg.norm(way_m)), 1e-12))
        return np.asarray(from_m + way_m)
