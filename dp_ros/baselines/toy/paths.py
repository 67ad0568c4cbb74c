"""A toy with two right answers: a path round a disc to a goal. No simulator; a chunk is the whole path.

Start and goal vary and do not say which side to take, as half of the demonstrations pass on the left and half
on the right. Whoever averages them drives into the disc.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.baselines.config import BimodalToyConfig

Array = NDArray[np.float64]

STATE_DIM, ACTION_DIM = 4, 2  # start x, y and goal x, y [m]; a point x, y [m]


def observations(count: int, rng: np.random.Generator) -> Array:
    """Starts below the disc, goals above it: (count, 4) in metres; the disc is at the origin."""
    start = np.array([0.0, -1.0]) + rng.uniform(-0.1, 0.1, (count, 2))
    goal = np.array([0.0, 1.0]) + rng.uniform(-0.1, 0.1, (count, 2))
    return np.concatenate([start, goal], axis=1)


def demonstrations(config: BimodalToyConfig) -> tuple[Array, Array]:
    """state (N, 4) and paths (N, T_p, 2) in metres, left and right by turns; each reaches its goal untouched."""
    rng = np.random.default_rng([config.data_seed, 0])
    count = config.demonstrations
    state = observations(count, rng)
    side = np.where(np.arange(count) % 2 == 0, -1.0, 1.0)
    height_m = side * (config.obstacle_radius_m + rng.uniform(*config.clearance_m, count))
    u = np.arange(1, config.T_p + 1) / config.T_p
    along = u ** rng.uniform(0.85, 1.15, (count, 1))  # some are early, some late
    paths = state[:, None, :2] + along[..., None] * (state[:, 2:] - state[:, :2])[:, None]
    paths[..., 0] += height_m[:, None] * np.sin(np.pi * along)
    paths[:, :-1] += rng.normal(0.0, config.tremor_m, paths[:, :-1].shape)
    return state, paths


@dataclass(frozen=True)
class Judgement:
    """What became of each path: arrays of bool, (N,)."""

    collided: NDArray[np.bool_]
    left: NDArray[np.bool_]  # passed the disc on the left, untouched
    right: NDArray[np.bool_]
    success: NDArray[np.bool_]  # untouched, and at the goal


def judge(state: Array, paths: Array, config: BimodalToyConfig) -> Judgement:
    """state (N, 4), paths (N, T_p, 2) in metres; a path is the line from the start through its points."""
    line = np.concatenate([state[:, None, :2], paths], axis=1)
    collided = ~(_distance_to_origin(line) >= config.obstacle_radius_m)  # NaN collides
    x_m = _crossing(line)
    at_goal = np.linalg.norm(paths[:, -1] - state[:, 2:], axis=-1) <= config.goal_radius_m
    return Judgement(collided, ~collided & (x_m < 0), ~collided & (x_m > 0), ~collided & at_goal)


def _distance_to_origin(line: Array) -> Array:
    """Least distance of each polyline (N, P, 2) to the origin, (N,)."""
    a, step = line[:, :-1], np.diff(line, axis=1)
    length2 = np.maximum((step**2).sum(-1), 1e-12)
    nearest = np.clip(-(a * step).sum(-1) / length2, 0.0, 1.0)
    distance_m: Array = np.linalg.norm(a + nearest[..., None] * step, axis=-1).min(axis=1)
    return distance_m


def _crossing(line: Array) -> Array:
    """x where each polyline (N, P, 2) last rises through the disc's height; NaN where it never does."""
    below, above = line[:, :-1], line[:, 1:]
    rises = (below[..., 1] < 0) & (above[..., 1] >= 0)
    last = rises.shape[1] - 1 - rises[:, ::-1].argmax(axis=1)
    each = np.arange(len(line))
    a, b = below[each, last], above[each, last]
    with np.errstate(divide="ignore", invalid="ignore"):
        x_m = a[:, 0] + (b[:, 0] - a[:, 0]) * -a[:, 1] / (b[:, 1] - a[:, 1])
    return np.where(rises.any(axis=1), x_m, np.nan)
