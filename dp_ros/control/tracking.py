"""Motion along the curve between two ticks, where accelerations are limited.

One command changes the position by far less than a curve bends between two of them: with a limit of jerk hardly any
command can be exactly on the curve. So a point goes along the curve beside the commands, no faster than the limits
allow on the bends and before the ends, and what the commands are apart from it decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dp_ros.control.interpolation import PLANNED, Interpolator
from dp_ros.control.limiter import Limiter, Point

_APART_M = 0.002  # so far apart from the curve the motion stops; it slows down from the half on
_PARTS = (0.0, 0.25, 1.0)  # of the way from the change of speed that is best to the strongest braking
_TOP = 0.995  # of the highest speed: none is left for a command that is behind


@dataclass(frozen=True)
class Tracked:
    """Result of one command along a curve."""

    share: float  # of the way that was due; below 1 the curve falls behind the clock
    is_exact: bool  # whether the command is the position that was due


class Tracker:
    """Commands along a curve, one after another; their state is that of the limiter."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def follow(self, curve: Interpolator, now_ns: int, dt_s: float, top_m_s: float) -> Tracked:
        """Give the limiter the next command; `top_m_s` is the highest speed."""
        limiter, path = self._limiter, curve.path(now_ns)
        due = path(1.0)
        fastest_m_s = curve.speed_ahead_m_s(due)
        if math.dist(limiter.position, due) <= fastest_m_s * dt_s and limiter.allows(due, dt_s, top_m_s):
            limiter.move(due, dt_s)
            return Tracked(1.0, True)
        at, most, direction = path(0.0), curve.most(now_ns), curve.direction
        apart = _minus(limiter.position, at)
        speed, change = _dot(limiter.velocity, direction), _dot(limiter.acceleration, direction)
        cap = min(_TOP * top_m_s, curve.speed_m_s, curve.speed_ahead_m_s(at))
        cap *= min(1.0, max(0.0, 2.0 - 2.0 * math.hypot(*apart) / _APART_M))
        best, hardest = self._changes(cap, speed, change, dt_s)
        to, on = due, at
        for part in _PARTS:
            wanted_m_s = max(0.0, speed + (best + part * (hardest - best)) * dt_s)
            on = path(_share_at(path, most, wanted_m_s * dt_s))
            to = self._reachable(self._beside(on, apart, direction, dt_s), dt_s)
            if limiter.allows(to, dt_s, top_m_s):
                break
        limiter.go(to, dt_s, top_m_s)
        # The point stays beside the commands, neither before nor behind them.
        ahead_m = _dot(_minus(limiter.position, on), direction)
        return Tracked(_share_at(path, most, max(0.0, math.dist(at, on) + ahead_m)), False)

    def _changes(self, cap_m_s: float, speed: float, change: float, dt_s: float) -> tuple[float, float]:
        """Changes of the speed [m/s^2]: the one that leads to `cap_m_s`, and the strongest braking."""
        limits = self._limiter.limits
        most, jerk, gap = PLANNED * limits.acceleration_m_s2, PLANNED * limits.jerk_m_s3, cap_m_s - speed
        best, hardest = min(most, abs(gap) / dt_s), -limits.acceleration_m_s2
        if jerk < math.inf:
            # From this change of speed on, it takes the rest of the gap to bring the change back to 0.
            half = 0.5 * jerk * dt_s
            best = min(best, math.sqrt(half * half + 2.0 * jerk * abs(gap)) - half)
            hardest = max(
                hardest, change - limits.jerk_m_s3 * dt_s, -math.sqrt(2.0 * limits.jerk_m_s3 * abs(speed))
            )
        best = math.copysign(best, gap)
        if jerk < math.inf:
            best = min(max(best, change - jerk * dt_s), change + jerk * dt_s)
        return best, min(hardest, best)

    def _beside(self, on: Point, apart: Point, direction: Point, dt_s: float) -> Point:
        """The command beside the point `on` of the curve: what it is apart decays, as fast as the limits allow."""
        limits, velocity = self._limiter.limits, self._limiter.velocity
        along = _dot(velocity, direction)
        rate = min(
            limits.jerk_m_s3 / limits.acceleration_m_s2,
            math.sqrt(limits.acceleration_m_s2 / (2.0 * _APART_M)),
            0.25 / dt_s,
        )
        x, y, z = (
            p + a + dt_s * (v - along * d - dt_s * rate * (rate * a + 2.0 * (v - along * d)))
            for p, a, v, d in zip(on, apart, velocity, direction, strict=True)
        )
        return (x, y, z)

    def _reachable(self, to: Point, dt_s: float) -> Point:
        """The position near `to` that the limits of acceleration and jerk allow."""
        limiter, limits = self._limiter, self._limiter.limits
        v, a = limiter.velocity, limiter.acceleration
        wanted = _scaled(_minus(_scaled(_minus(to, limiter.position), 1.0 / dt_s), v), 1.0 / dt_s)
        wanted = _scaled(wanted, min(1.0, limits.acceleration_m_s2 / max(math.hypot(*wanted), 1e-300)))
        change = _minus(wanted, a)
        most = limits.jerk_m_s3 * dt_s
        change = _scaled(change, min(1.0, most / max(math.hypot(*change), 1e-300)))
        x, y, z = (
            p + dt_s * (q + dt_s * (r + s)) for p, q, r, s in zip(limiter.position, v, a, change, strict=True)
        )
        return (x, y, z)


def _share_at(path: Callable[[float], Point], most: float, way_m: float) -> float:
    """Share of the way that is due at that distance from its begin; `most` beyond it."""
    begin = path(0.0)
    whole_m = math.dist(begin, path(most))
    if way_m >= whole_m:
        return most
    low, high, share = 0.0, most, most * way_m / whole_m
    for _ in range(16):
        found_m = math.dist(begin, path(share))
        if abs(found_m - way_m) <= 1e-6 * way_m:
            break
        low, high = (share, high) if found_m < way_m else (low, share)
        share = share * way_m / found_m if found_m > 0.0 else high
        if not low < share < high:
            share = 0.5 * (low + high)
    return share


def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _minus(a: Point, b: Point) -> Point:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _scaled(a: Point, by: float) -> Point:
    return (a[0] * by, a[1] * by, a[2] * by)
