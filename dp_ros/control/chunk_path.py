"""Way of a chunk: the polygon through its actions, and how fast an arm may be on it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Limits, Point, between, point

_TINY = 1e-9


class ChunkPath:
    """Way of a chunk from where the arm is told to be, through its actions; beyond the last one it rests."""

    def __init__(self, chunk: Chunk, begin: float, due: float, start: Point, limits: Limits) -> None:
        """begin: index of the last executed action, with the part of the next; due: that at this time, or later."""
        self._begin, self._due, self._start, self.dt_s = begin, max(due, begin), start, chunk.dt_ns / 1e9
        self._first = math.floor(begin + _TINY) + 1  # index of the next action
        positions = np.clip(POSITION.of(chunk.actions[max(self._first, 0) :]), limits.low_m, limits.high_m)
        finite = np.isfinite(POSITION.of(chunk.actions[max(self._first, 0) :])).all(axis=1)
        if not finite.all():
            positions = positions[: int(np.argmin(finite))]
        self._points = [point(each) for each in positions]

    def __call__(self, share: float) -> Point:
        at = self._begin + share * (self._due - self._begin)
        i = math.ceil(at - _TINY) - self._first
        if i < 0 or not self._points:
            return self._start
        if i >= len(self._points):
            return self._points[-1]
        last = self._points[i - 1] if i else self._start
        from_at = self._first + i - 1 if i else self._begin
        part = (at - from_at) / (self._first + i - from_at)
        return self._points[i] if part >= 1.0 - _TINY else between(last, self._points[i], part)

    def share_at(self, way_m: float) -> float:
        """Share of the way that is due at that length of it; 1 beyond it."""
        at = self._begin
        for i, (p, q) in enumerate(pairwise([self._start, *self._points])):
            end = min(self._first + i, self._due)
            span = self._first + i - at  # of the whole piece, in actions
            length_m = math.dist(p, q) * (end - at) / span
            if way_m <= length_m and length_m > 0.0:
                at += way_m / length_m * (end - at)
                return (at - self._begin) / (self._due - self._begin)
            way_m, at = way_m - length_m, end
            if at >= self._due:
                break
        return 1.0

    def speed_ahead_m_s(self, limits: Limits, period_s: float) -> float:
        """Highest speed from which the arm can slow down for each corner and rest of the path ahead."""
        points = [self._start, *self._points]
        spans_s = [max(self._first - self._begin, _TINY) * self.dt_s] + [self.dt_s] * (len(points) - 2)
        velocities = [
            [(b - a) / span_s for a, b in zip(p, q, strict=True)]
            for (p, q), span_s in zip(pairwise(points), spans_s, strict=False)
        ]
        change_m_s = limits.turn_m_s(period_s)
        delay_m_s = limits.acceleration_m_s2**2 / limits.jerk_m_s3  # until the brake is released and applied
        top = math.inf
        for i in reversed(range(len(velocities))):
            way_m = math.hypot(*velocities[i]) * spans_s[i]
            top = math.sqrt(delay_m_s**2 + top * top + 2.0 * limits.acceleration_m_s2 * way_m) - delay_m_s
            top = max(top, change_m_s)
            if i:
                before, after = velocities[i - 1], velocities[i]
                pace = min(1.0, change_m_s / max(math.dist(before, after), _TINY))
                top = min(top, max(pace * math.hypot(*before), pace * math.hypot(*after), change_m_s))
        return top
