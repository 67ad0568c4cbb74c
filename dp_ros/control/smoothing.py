"""A smooth way near a chunk's actions, for an arm that cannot follow each of their trembles.

Whittaker's smoother (1923): of the points q near the actions' positions p, those with the least sum of |q - p|^2 and,
times a weight, of the squared second differences of q. The weight is the first with which the arm keeps the pace of the
chunk, else the one that leaves least to slow down for.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import GRIPPER, POSITION
from dp_ros.control.chunk import Chunk
from dp_ros.control.limiter import Limits, Point
from dp_ros.control.safety import Array

_WEIGHTS = tuple(
    4.0**k for k in range(-1, 7)
)  # of trembles with periods of 4.0, 6.0, 8.7 ... 50 actions, half stays
_SHORTEST = 0.05  # the first piece, in actions; the direction of a shorter one is mostly rounding


def smoothed(
    chunk: Chunk, begin: float, start: Point, velocity: Point, tolerance_m: float, limits: Limits
) -> Chunk:
    """A chunk whose positions are no further than the tolerance from those of `chunk`.

    What is before the index `begin`, at which the arm is, stays, and so do the places where the chunk rests, ends, or
    switches the gripper. A chunk that the limits allow is returned as it is. start, velocity: of the arm.
    """
    dt_s = chunk.dt_ns / 1e9
    turn_m = limits.turn_m_s(dt_s) * dt_s  # in a tick
    first = max(math.floor(begin + 1e-9) + 1, 0)
    raw = _finite(chunk.actions[first:])
    p = np.clip(POSITION.of(raw), limits.low_m, limits.high_m)
    free = ~_kept(p, GRIPPER.of(raw)[:, 0])
    if turn_m == math.inf or not free.any():
        return chunk
    speed = math.hypot(*velocity)
    is_still = speed * dt_s <= turn_m  # it may take any direction
    span = max(first - begin, _SHORTEST)
    heading_m = np.zeros(3) if is_still else np.array(velocity) * (math.dist(p[0], start) / span / speed)
    turns = _Turns(span, len(p), heading_m, np.array(start), is_still)

    def excess(points: Array) -> float:
        """Of the turns over those that the limits allow, in squares, at the chunk's pace or the highest speed."""
        sizes_m = turns.sizes_m(points, limits.speed_m_s * dt_s)
        return float((np.maximum(sizes_m - turn_m, 0.0) ** 2).sum())

    best, least = p, excess(p)
    if not least:
        return chunk
    by, given = turns.of_points[:, free], turns.of_points[:, ~free] @ p[~free] + turns.constant
    square, pull = by.T @ by, by.T @ given
    for weight in _WEIGHTS:
        q = p.copy()
        q[free] = np.linalg.solve(np.eye(len(square)) + weight * square, p[free] - weight * pull)
        away_m = float(np.linalg.norm(q - p, axis=1).max())
        q = p + (q - p) * min(1.0, tolerance_m / away_m) if away_m else q
        if (left := excess(q)) < least:
            best, least = q, left
        if not least:
            break
    actions = chunk.actions.copy()
    actions[first : first + len(p), POSITION.slice] += best - p  # what is outside the box stays outside
    return chunk if best is p else replace(chunk, actions=actions)


class _Turns:
    """Changes of the way from one action to the next: at the start and at each point but the last."""

    def __init__(self, span: float, count: int, heading_m: Array, start_m: Array, is_still: bool) -> None:
        """span: of the piece before the first point, in actions. is_still: the first piece has any direction."""
        spans = np.array([span] + [1.0] * (count - 1))
        ways = (np.eye(count) - np.eye(count, k=-1)) / spans[:, None]  # to each point, in a tick
        self._ways, self._ways_constant = ways, np.zeros((count, 3))
        self._ways_constant[0] = -start_m / span
        first = 1 if is_still else 0
        self.of_points = np.diff(ways, axis=0, prepend=0.0)[first:]
        self.constant = np.diff(self._ways_constant, axis=0, prepend=heading_m[None])[first:]

    def sizes_m(self, points: Array, most_m: float) -> Array:
        """Of each turn, for an arm that goes `most_m` a tick at most: a slow one has longer for a smaller change."""
        way_m = np.linalg.norm(self._ways @ points + self._ways_constant, axis=1)
        before_m = np.append(way_m[0], way_m[:-1])[-len(self.of_points) :]
        pace = np.minimum(1.0, most_m / np.maximum(np.maximum(before_m, way_m[-len(before_m) :]), 1e-12))
        return np.asarray(np.linalg.norm(self.of_points @ points + self.constant, axis=1) * pace**2)


def _finite(actions: Array) -> Array:
    """The actions before the first one that is not finite."""
    finite = np.isfinite(actions).all(axis=1)
    return actions[: len(actions) if finite.all() else int(np.argmin(finite))]


def _kept(positions: Array, gripper: Array) -> NDArray[np.bool_]:
    """(n,) which of the positions stay: both ends of a rest and of a switch of the gripper, and the last one."""
    rests = (np.diff(positions, axis=0) == 0.0).all(axis=1) | (np.diff(gripper > 0.0))
    kept = np.zeros(len(positions), dtype=bool)
    kept[1:] |= rests
    kept[:-1] |= rests
    kept[-1:] = True
    return kept
