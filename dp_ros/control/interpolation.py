"""Commands between the ticks of a policy, at the robot's own rate: a velocity-continuous curve through its actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Limits, Point, point, slowed_m_s
from dp_ros.control.safety import Array
from dp_ros.schema import ConfigError, GateConfig, PolicyConfig, RuntimeConfig

PLANNED = 0.8  # share of the limits to plan with: the rest brings the commands back to the curve
_BENDS = 0.5  # the same on bends with a limit of jerk
_SHARP = 1.4  # change of a direction, a unit vector, from which on a bend is a turn: 90 degrees


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


class LookAhead:
    """Highest speeds on a piece of the curve and behind it, as far as the chunk is known."""

    def __init__(self, points: list[Array], slopes: tuple[Array, Array], dt_s: float, limits: Limits) -> None:
        """points: begin and end of the piece, and the actions after it; slopes: at its begin and end."""
        self._limits, self._end = limits, point(points[1])
        steps = [q - p for p, q in pairwise(points)]
        lengths_m = [float(np.linalg.norm(step)) for step in steps]
        self._bend_m_s = _bend_m_s(*slopes, lengths_m[0], limits)
        # Highest speed, and the way to it from the end of the piece.
        self._knots: list[tuple[float, float]] = []
        if not slopes[1].any():
            self._knots.append((0.0, 0.0))
        way_m = 0.0
        for (before, step), (before_m, step_m) in zip(pairwise(steps), pairwise(lengths_m), strict=True):
            bend_m_s = _bend_m_s(before, step, 0.5 * (before_m + step_m), limits)
            self._knots.append((min(bend_m_s, step_m / dt_s), way_m))
            way_m += step_m

    def speed_m_s(self, at: Point) -> float:
        """Highest speed at a point of the piece from which the arm can slow down for all bends and rests ahead."""
        way_m = math.dist(at, self._end)
        return min(
            [self._bend_m_s, *(slowed_m_s(top, way_m + far_m, self._limits) for top, far_m in self._knots)]
        )


def _bend_m_s(before: Array, after: Array, way_m: float, limits: Limits) -> float:
    """Highest speed on a bend from one direction to another on that way; 0 where it is sharp."""
    a_m, b_m = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    if not (a_m > 0.0 and b_m > 0.0 and way_m > 0.0):
        return math.inf
    turn = float(np.linalg.norm(after / b_m - before / a_m))
    if turn > _SHARP:
        return 0.0
    bend_per_m = max(turn / way_m, 1e-12)
    share = PLANNED if limits.jerk_m_s3 == math.inf else _BENDS
    by_acceleration = math.sqrt(share * limits.acceleration_m_s2 / bend_per_m)
    return min(by_acceleration, math.cbrt(_BENDS * limits.jerk_m_s3 * way_m / bend_per_m))


class Interpolator:
    """The curve of one episode.

    From tick to tick the curve goes from where it is, with its velocity, to the next action of the chunk in use; so it
    passes through each action at its time. A new chunk changes only the end of the next piece, so neither position nor
    velocity jumps. It begins at rest. Where no action follows, it ends at rest. Where a limit bites, the commands go
    along the curve more slowly.

    With a limit of acceleration only the direction is continuous: `Tracker` makes the speed so. A curve that begins at
    rest may then have the speed of the chunk.
    """

    def __init__(self, dt_ns: int) -> None:
        self._dt_ns = dt_ns
        self.clear()

    def clear(self) -> None:
        """Stop: the next curve begins at rest."""
        self._segment: Segment | None = None
        self._look_ahead: LookAhead | None = None  # of a curve that is tracked
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

    def most(self, now_ns: int) -> float:
        """Share of the way that is due now at which this piece ends; at least 1."""
        segment, due_ns = self._segment, now_ns - self._clock_ns
        assert segment is not None
        left_ns = segment.begin_ns + self._dt_ns - self._reached_ns
        return max(1.0, left_ns / due_ns) if due_ns > 0 else 1.0

    @property
    def direction(self) -> Point:
        """Direction of the curve at the last command; zero where it rests."""
        slope_m = self._slope_m
        length_m = float(np.linalg.norm(slope_m))
        return point(slope_m / length_m) if length_m > 0.0 else (0.0, 0.0, 0.0)

    @property
    def speed_m_s(self) -> float:
        """Speed of the curve there, by its own time."""
        return float(np.linalg.norm(self._slope_m)) * 1e9 / self._dt_ns

    @property
    def _slope_m(self) -> Array:
        assert self._segment is not None
        return self._segment.at(self._reached_ns)[1]

    def speed_ahead_m_s(self, at: Point) -> float:
        """Highest speed at a point of the curve from which the arm can slow down for all bends and rests ahead."""
        if self._look_ahead is None:  # the limit is newer than this piece
            return math.inf
        return self._look_ahead.speed_m_s(at)

    def follow(self, share: float, now_ns: int) -> float:
        """Take a command at that share of the way; the ticks by which the curve falls behind the clock.

        They are negative where it catches up.
        """
        due_ns = now_ns - self._clock_ns
        self._reached_ns, self._clock_ns = self._reached_ns + round(share * due_ns), now_ns
        return (1.0 - share) * due_ns / self._dt_ns

    def lead(
        self,
        now_ns: int,
        chunk: Chunk,
        position_m: Array,
        due_m: Array,
        gate: GateConfig,
        speed_m_s: float = 0.0,
    ) -> None:
        """At a tick: the next piece, from the present command to the chunk's next action; else to `due_m`, for now.

        speed_m_s: of the commands.
        """
        is_tracked = bool(gate.max_acceleration_m_s2) and gate.slowing == "path"
        slope_m = np.zeros(POSITION.size)
        if self._segment is not None:
            reached_m, slope_m = self._segment.at(self._reached_ns)
            position_m = reached_m if is_tracked else position_m
        end_m = self._next(position_m, chunk.at(now_ns + self._dt_ns), due_m, gate)
        after_m = self._next(end_m, chunk.at(now_ns + 2 * self._dt_ns), end_m, gate)
        end_slope_m = pchip_slope(end_m - position_m, after_m - end_m)
        self._look_ahead = None
        if is_tracked:
            slope_m = self._begin_slope(slope_m, end_m - position_m, speed_m_s)
            ahead_m = self._ahead(now_ns + 2 * self._dt_ns, chunk, gate)
            points, slopes = [position_m, end_m, *ahead_m], (slope_m, end_slope_m)
            self._look_ahead = LookAhead(points, slopes, self._dt_ns / 1e9, Limits.of(gate))
        self._segment = Segment(now_ns, self._dt_ns, position_m, slope_m, end_m, end_slope_m)
        self._reached_ns = self._clock_ns = now_ns

    def _begin_slope(self, slope_m: Array, way_m: Array, speed_m_s: float) -> Array:
        """Slope at the begin of a piece that is tracked: of the same direction as before, with a size that fits."""
        before_m, length_m = float(np.linalg.norm(slope_m)), float(np.linalg.norm(way_m))
        if not before_m > 0.0:
            return way_m
        size_m = max(speed_m_s * self._dt_ns / 1e9, min(before_m, length_m))
        return np.asarray(slope_m * (size_m / before_m))

    def _ahead(self, begin_ns: int, chunk: Chunk, gate: GateConfig) -> list[Array]:
        """Positions of the chunk's actions from `begin_ns` on, inside the box, until one is not finite."""
        ahead_m: list[Array] = []
        while (action := chunk.at(begin_ns + len(ahead_m) * self._dt_ns)) is not None:
            if not np.isfinite(action).all():
                break
            ahead_m.append(np.clip(POSITION.of(action), gate.workspace_low_m, gate.workspace_high_m))
        return ahead_m

    def _next(self, from_m: Array, action: Array | None, otherwise_m: Array, gate: GateConfig) -> Array:
        """Position of an action inside the box, else `otherwise_m`. Clipped per axis: as far as a tick reaches."""
        wanted_m = otherwise_m if action is None or not np.isfinite(action).all() else POSITION.of(action)
        way_m = np.clip(wanted_m, gate.workspace_low_m, gate.workspace_high_m) - from_m
        if gate.slowing == "axes":
            longest_m = gate.max_speed_m_s * self._dt_ns / 1e9
            way_m = way_m * min(1.0, longest_m / max(float(np.linalg.norm(way_m)), 1e-12))
        return np.asarray(from_m + way_m)
