"""Limits of the commanded motion: box, speed, acceleration and jerk, none of which is ever exceeded.

A command is allowed where it keeps the limits and where the arm can still stop within them afterwards. So the stop of
the last allowed command is always possible, and it is what remains where no other command is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dp_ros.schema import CommandLimits, GateConfig

Point = tuple[float, float, float]
_ROUNDING = 1.0 + 1e-9
_STILL: Point = (0.0, 0.0, 0.0)
_BISECTIONS = 12


@dataclass(frozen=True)
class Limits:
    """Limits of one arm; infinite where there is none."""

    low_m: Point
    high_m: Point
    speed_m_s: float
    acceleration_m_s2: float = math.inf
    jerk_m_s3: float = math.inf

    @classmethod
    def of(cls, config: CommandLimits) -> Limits:
        free = math.inf
        acceleration, jerk = free, free
        if isinstance(config, GateConfig):
            acceleration, jerk = config.max_acceleration_m_s2 or free, config.max_jerk_m_s3 or free
        return cls(config.workspace_low_m, config.workspace_high_m, config.max_speed_m_s, acceleration, jerk)

    def turn_m_s(self, period_s: float) -> float:
        """Change of velocity that is possible in one period."""
        return min(self.acceleration_m_s2, self.jerk_m_s3 * period_s) * period_s


class Limiter:
    """Position, velocity and acceleration of the commands so far, and the stop from there.

    Positions are in metres, `dt_s` is the time since the last command, `period_s` the usual time between two. The
    velocity of a command is its step by `dt_s`. An arm that begins outside the box may stay there, but every command
    along an axis that is outside leads inward.
    """

    _stop: list[Point] | None  # positions after 1, 2, ... periods; None: follow from the state
    _stopped: float  # periods of it that have passed

    def __init__(self, limits: Limits, period_s: float) -> None:
        self._limits, self._h = limits, period_s
        self.begin(_STILL)

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        """Take other limits; a stop in progress goes on within them."""
        old, self._limits = self._limits, limits
        is_as_fast = (limits.acceleration_m_s2, limits.jerk_m_s3) == (old.acceleration_m_s2, old.jerk_m_s3)
        ahead = (self._stop or [])[int(self._stopped) :]
        low, high = limits.low_m, limits.high_m
        fits = all(a <= x <= b for to in ahead for a, x, b in zip(low, to, high, strict=True))
        if limits != old and not (is_as_fast and fits):  # another stop would release the brake first
            self._leave_stop()

    def begin(self, position_m: Iterable[float]) -> None:
        """At rest at a finite position (3,)."""
        self.position: Point = point(position_m)
        self.velocity = self.acceleration = _STILL
        self._stop_from: Point = self.position
        self._stop_velocity = _STILL  # where it begins
        self._stop = None
        self._stopped = 0.0

    def place(self, position_m: Iterable[float]) -> None:
        """At another finite position (3,), with the same velocity and acceleration."""
        self._leave_stop()
        self.position = self._stop_from = point(position_m)

    @property
    def speed_m_s(self) -> float:
        return math.hypot(*self.velocity)

    @property
    def is_moving(self) -> bool:
        return self.velocity != _STILL or self.acceleration != _STILL

    @property
    def stop_periods(self) -> int:
        """Usual periods until the arm rests, if it stops now."""
        if self.limits.acceleration_m_s2 == math.inf or not self.is_moving:
            return 0
        return max(0, math.ceil(len(self._stop_path()) - self._stopped))

    def allows(self, to: Point, dt_s: float, cap_m_s: float = math.inf) -> bool:
        """Whether a command keeps the limits, and no more than the speed `cap_m_s` where the arm can be that slow."""
        if to == self.position and not self.is_moving:
            return True
        if not dt_s > 0.0:
            return False
        limits, low, high = self.limits, *self._box()
        if not all(a <= x <= b for a, x, b in zip(low, to, high, strict=True)):
            return False
        v = _scaled(_minus(to, self.position), 1.0 / dt_s)
        speed = math.hypot(*v)
        top = min(limits.speed_m_s, cap_m_s)
        if not speed <= top * _ROUNDING and not speed <= self._brake_speed(dt_s):
            return False
        if limits.acceleration_m_s2 == math.inf:
            return True
        a = _scaled(_minus(v, self.velocity), 1.0 / dt_s)
        if not math.hypot(*a) <= limits.acceleration_m_s2 * _ROUNDING:
            return False
        if not math.dist(a, self.acceleration) <= limits.jerk_m_s3 * dt_s * _ROUNDING:
            return False
        return self._can_stop(to, v, a, low, high)

    def move(self, to: Point, dt_s: float) -> None:
        """Take a command that is allowed."""
        self._take(to, dt_s)
        self._stop, self._stopped = None, 0.0

    def brake_to(self, dt_s: float) -> Point:
        """The position of the next command of the stop."""
        if self.limits.acceleration_m_s2 == math.inf or not self.is_moving or not dt_s > 0.0:
            return self.position
        at, stop = self._stopped + dt_s / self._h, self._stop_path()
        if at >= len(stop):
            return stop[-1]
        i = int(at)
        return between(stop[i - 1] if i else self._stop_from, stop[i], at - i)

    def brake(self, dt_s: float) -> Point:
        """Take the next command of the stop. Without a limit of the acceleration, that is the last position."""
        to = self.brake_to(dt_s)
        if self.limits.acceleration_m_s2 == math.inf:
            self.velocity = self.acceleration = _STILL
        elif self.is_moving and dt_s > 0.0:
            self._stopped += dt_s / self._h
            self._take(to, dt_s)
        return self.position

    def reach_m(self, dt_s: float) -> float:
        """No two allowed positions of the next command are further apart."""
        limits = self.limits
        return (
            2.0
            * min(limits.speed_m_s, limits.acceleration_m_s2 * dt_s, limits.jerk_m_s3 * dt_s * dt_s)
            * dt_s
        )

    def nearest(self, to: Point, dt_s: float, cap_m_s: float = math.inf) -> Point | None:
        """The allowed position nearest to `to` on the line from the stop's next command; None where only the stop is
        allowed."""
        if self.allows(to, dt_s, cap_m_s):
            return to
        base = self.brake_to(dt_s)
        if (
            self.limits.acceleration_m_s2 == math.inf and dt_s > 0.0
        ):  # only the speed or the box can have refused it
            way_m = math.dist(base, to)
            share = min(self.limits.speed_m_s, cap_m_s) * dt_s / way_m if 0.0 < way_m < math.inf else 0.0
            if self.allows(near := between(base, to, min(share, 1.0)), dt_s, cap_m_s):
                return near
        low, high = 0.0, min(1.0, self.reach_m(dt_s) / max(math.dist(base, to), 1e-300))
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            if self.allows(between(base, to, middle), dt_s, cap_m_s):
                low = middle
            else:
                high = middle
        return between(base, to, low) if low else None

    def go(self, to: Point, dt_s: float, cap_m_s: float = math.inf) -> Point:
        """Take the position that `nearest` gives, else the next command of the stop; what was taken."""
        near = self.nearest(to, dt_s, cap_m_s)
        if near is None:
            return self.brake(dt_s)
        self.move(near, dt_s)
        return self.position

    # ---- the stop --------------------------------------------------------------------------------------

    def _leave_stop(self) -> None:
        """Forget the stop in progress; another one begins with the velocity and acceleration that it has reached.

        Those between its last two commands would not do: within an interval that is shorter than a period, the
        velocity of a stop changes by what it changes in a whole one, and an acceleration of many times the limit cannot
        be released.
        """
        if self._stop is not None and self._stopped:
            path, reached = [self._stop_from, *self._stop], math.ceil(self._stopped)
            velocities = [
                _scaled(_minus(path[k], path[k - 1]), 1.0 / self._h) if 0 < k < len(path) else _STILL
                for k in (reached - 1, reached)
            ]
            before = velocities[0] if reached > 1 else self._stop_velocity
            self.velocity = velocities[1]
            self.acceleration = _scaled(_minus(self.velocity, before), 1.0 / self._h)
        self._stop, self._stopped = None, 0.0

    def _box(self) -> tuple[Point, Point]:
        """The box, wide enough for where the arm is."""
        low, high, at = self.limits.low_m, self.limits.high_m, self.position
        return _lower(low, at), _upper(high, at)

    def _take(self, to: Point, dt_s: float) -> None:
        if not dt_s > 0.0:
            return
        v = _scaled(_minus(to, self.position), 1.0 / dt_s)
        if self.limits.acceleration_m_s2 < math.inf:
            self.acceleration = _scaled(_minus(v, self.velocity), 1.0 / dt_s)
        self.position, self.velocity = to, v

    def _brake_speed(self, dt_s: float) -> float:
        return math.dist(self.brake_to(dt_s), self.position) / dt_s

    def _release(self, a: Point) -> int:
        """Periods in which the acceleration is brought to 0."""
        jerk = self.limits.jerk_m_s3
        return 0 if jerk == math.inf else math.ceil(math.hypot(*a) / (jerk * self._h) - 1e-9)

    def _profile(self, speed_m_s: float) -> tuple[int, int]:
        """(periods in which the braking rises and falls, periods in all) of the shortest stop along a line."""
        if speed_m_s <= 1e-12:
            return 0, 0
        h, most = self._h, self.limits.acceleration_m_s2
        step = min(most, self.limits.jerk_m_s3 * h)  # change of the braking in a period
        ramp = max(
            1, min(math.ceil(math.sqrt(speed_m_s / (step * h)) - 1e-9), math.floor(most / step + 1e-9))
        )
        whole = speed_m_s / (min(step, most / ramp) * h)  # = ramp^2 + ramp * plateau
        plateau = max(0, math.ceil((whole - ramp * ramp) / ramp - 1e-9))
        return ramp, 2 * ramp - 1 + plateau

    def _released(self, a: Point, v: Point) -> tuple[int, Point]:
        n = self._release(a)
        gain = self._h * (n - 1) / 2.0 if n else 0.0
        return n, _plus(v, _scaled(a, gain))

    def _can_stop(self, to: Point, v: Point, a: Point, low: Point, high: Point) -> bool:
        """Whether a stop after the command `to` keeps the limits of speed and box."""
        h, (n, v_end) = self._h, self._released(a, v)
        speed = math.hypot(*v_end)
        top = max(self.limits.speed_m_s, math.hypot(*v))
        if not speed <= top * _ROUNDING:
            return False
        periods = self._profile(speed)[1]
        drift = h * h * (n * n - 1) / 3.0 if n else 0.0  # sum of k - k (k + 1) / 2n, k = 1 ... n
        way = h * max(periods - 1, 0) / 2.0
        for x, vx, ax, ex, a_m, b_m in zip(to, v, a, v_end, low, high, strict=True):
            end = x + n * h * vx + drift * ax + way * ex
            if not a_m <= end <= b_m:
                return False
            turns = n > 1 and (vx > 0.0) != (ex > 0.0)  # on the way, but no further than this
            if turns and not a_m <= x + n * h * min(vx, ex) <= x + n * h * max(vx, ex) <= b_m:
                return False
        return True

    def _stop_path(self) -> list[Point]:
        """Positions of the stop: the acceleration is released, then the arm brakes in a straight line."""
        if self._stop is not None:
            return self._stop
        h, v, a = self._h, self.velocity, self.acceleration
        n, v_end = self._released(a, v)
        speed = math.hypot(*v_end)
        ramp, periods = self._profile(speed)
        velocities = []
        for k in range(1, n + 1):
            velocities.append(_plus(v, _scaled(a, h * (k - k * (k + 1) / (2.0 * n)))))
        weights = [min(k, ramp, periods + 1 - k) for k in range(1, periods + 1)]
        done, total = 0, sum(weights)
        for weight in weights:
            done += weight
            velocities.append(_scaled(v_end, 1.0 - done / total))
        self._stop, self._stop_from, self._stop_velocity = [], self.position, v
        low, high = self._box()
        at = self.position
        for each in velocities:
            at = _upper(low, _lower(high, _plus(at, _scaled(each, h))))
            self._stop.append(at)
        if not self._stop:
            self._stop.append(self.position)
        return self._stop


def slowed_m_s(end_m_s: float, way_m: float, limits: Limits) -> float:
    """Highest speed from which the arm can slow down to `end_m_s` on a straight way."""
    a, j = limits.acceleration_m_s2, limits.jerk_m_s3
    if a == math.inf:
        return math.inf
    delay = a * a / j  # the change of speed while the brake is applied and released
    left = 0.25 * delay * delay + end_m_s * (end_m_s - delay) + 2.0 * a * way_m
    full = math.sqrt(left) - 0.5 * delay
    part = end_m_s + (j * (0.5 * way_m / limits.speed_m_s) ** 2 if j < math.inf else 0.0)
    return max(full, min(part, end_m_s + delay))


def point(values: Iterable[float]) -> Point:
    x, y, z = map(float, values)
    return (x, y, z)


def _plus(a: Point, b: Point) -> Point:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _minus(a: Point, b: Point) -> Point:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _scaled(a: Point, by: float) -> Point:
    return (a[0] * by, a[1] * by, a[2] * by)


def between(a: Point, b: Point, share: float) -> Point:
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2]))


def _lower(a: Point, b: Point) -> Point:
    return (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]))


def _upper(a: Point, b: Point) -> Point:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]))
