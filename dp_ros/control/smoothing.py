"""A smooth way near a chunk's actions, for an arm that cannot follow each of their trembles.

Whittaker's smoother (1923): of the points q near the actions' positions p, those with the least sum of |q - p|^2 and,
times a weight, of the squared second differences of q. The weight is the first with which the arm can keep pace.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dp_ros.actions import POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Limits, Point
from dp_ros.control.safety import Array

_WEIGHTS = tuple(
    4.0**k for k in range(-1, 7)
)  # of trembles with periods of 4.4, 6.3, 8.9 ... 50 actions, half stays
_SHORTEST = 0.05  # the first piece, in actions; the direction of a shorter one is mostly rounding


def smoothed(
    chunk: Chunk, begin: float, start: Point, velocity: Point, tolerance_m: float, limits: Limits
) -> Chunk:
    """A chunk whose positions are no further than the tolerance from those of `chunk`, inside the box.

    What is before the index `begin`, at which the arm is, stays, and so does where the chunk rests or ends. A chunk
    that the limits allow stays whole. start, velocity: of the arm.
    """
    dt_s = chunk.dt_ns / 1e9
    turn_m, most_m = limits.turn_m_s(dt_s) * dt_s, limits.speed_m_s * dt_s  # a tick
    if turn_m == math.inf:
        return chunk
    first = max(math.floor(begin + 1e-9) + 1, 0)
    p = np.clip(_until_it_rests(POSITION.of(chunk.actions[first:])), limits.low_m, limits.high_m)
    kept = 2 if len(p) > 1 and (p[-1] == p[-2]).all() else 1  # at the end
    free = len(p) - kept
    if free < 1:
        return chunk
    # Ways from one action to the next, and how they turn, as matrices on (heading, start, actions).
    spans = np.array([max(first - begin, _SHORTEST)] + [1.0] * (len(p) - 1))
    at = np.arange(len(p))
    ways = np.zeros((len(p) + 1, len(p) + 2))
    ways[0, 0] = 1.0
    ways[at + 1, at + 1], ways[at + 1, at + 2] = -1.0 / spans, 1.0 / spans
    turns = np.diff(ways, axis=0)
    way_m, speed = np.linalg.norm(p[0] - start) / spans[0], math.hypot(*velocity)
    heading_m = np.array(velocity) * (way_m / speed) if speed else np.zeros(3)
    if not heading_m.any():
        turns = turns[1:]

    def excess(points: Array) -> float:
        """Of the turns over those that the limits allow, in squares, at the chunk's pace or the highest speed."""
        known = np.vstack([heading_m, start, points])
        way_m = np.linalg.norm(ways @ known, axis=1)
        pace = np.minimum(1.0, most_m / np.maximum(np.maximum(way_m[:-1], way_m[1:]), 1e-12))
        sizes_m = np.linalg.norm(turns @ known, axis=1) * pace[-len(turns) :] ** 2
        return float((np.maximum(sizes_m - turn_m, 0.0) ** 2).sum())

    best, least = p, excess(p)
    by = turns[:, 2 : 2 + free]
    given = turns @ np.vstack([heading_m, start, 0.0 * p[:free], p[free:]])
    for weight in _WEIGHTS:
        if not least:
            break
        q = p.copy()
        q[:free] = np.linalg.solve(np.eye(free) + weight * by.T @ by, p[:free] - weight * by.T @ given)
        away_m = float(np.linalg.norm(q - p, axis=1).max())
        q = p + (q - p) * min(1.0, tolerance_m / away_m) if away_m else q
        if (left := excess(q)) < least:
            best, least = q, left
    if best is p:
        return chunk
    actions = chunk.actions.copy()
    actions[first : first + len(p), POSITION.slice] = best
    return replace(chunk, actions=actions)


def _until_it_rests(positions: Array) -> Array:
    """The finite positions from the first on, and of those at which the path ends, if it rests there, two."""
    finite = np.isfinite(positions).all(axis=1)
    positions = positions[: len(positions) if finite.all() else int(np.argmin(finite))]
    moves = np.flatnonzero((np.diff(positions, axis=0) != 0.0).any(axis=1))
    return positions[: (moves[-1] if len(moves) else -1) + 3]
