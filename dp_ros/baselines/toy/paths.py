"""Demonstrations of the bimodal toy, and the verdict on a path. A chunk is a whole path from start to goal.

A disc is between start and goal. Half of the demonstrations pass on its left and half on its right, and neither start
nor goal tells the side. The mean of the demonstrations hits the disc.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp_ros.actions import Part
from dp_ros.baselines.config import BimodalToyConfig

Array = NDArray[np.float64]

# The toy's state is start and goal; its action is a point of the path. Each has x and y, with the disc at the origin.
START = Part("start", 0, 2, "m")
GOAL = Part("goal", 2, 2, "m")
STATE_DIM = START.size + GOAL.size
ACTION_DIM = 2


def observations(count: int, rng: np.random.Generator) -> Array:
    """Starts below the disc and goals above it: (count, STATE_DIM) in metres."""
    start = np.array([0.0, -1.0]) + rng.uniform(-0.1, 0.1, (count, 2))
    goal = np.array([0.0, 1.0]) + rng.uniform(-0.1, 0.1, (count, 2))
    return np.concatenate([start, goal], axis=1)


def demonstrations(config: BimodalToyConfig) -> tuple[Array, Array]:
    """state (N, STATE_DIM) and paths (N, T_p, 2) in metres. Paths alternate between left and right; each ends at its
    goal and none touches the disc."""
    rng = np.random.default_rng([config.data_seed, 0])
    count = config.demonstrations
    state = observations(count, rng)
    side = np.where(np.arange(count) % 2 == 0, -1.0, 1.0)
    height_m = side * (config.obstacle_radius_m + rng.uniform(*config.clearance_m, count))
    u = np.arange(1, config.T_p + 1) / config.T_p
    along = u ** rng.uniform(0.85, 1.15, (count, 1))  # some paths are early, some late
    start, goal = START.of(state), GOAL.of(state)
    paths = start[:, None] + along[..., None] * (goal - start)[:, None]
    paths[..., 0] += height_m[:, None] * np.sin(np.pi * along)
    paths[:, :-1] += rng.normal(0.0, config.tremor_m, paths[:, :-1].shape)
    return state, paths


@dataclass(frozen=True)
class Judgement:
    """Verdict on each path: arrays of bool, (N,)."""

    collided: NDArray[np.bool_]
    left: NDArray[np.bool_]  # passed the disc on the left without touching it
    right: NDArray[np.bool_]
    success: NDArray[np.bool_]  # ends at the goal and does not touch the disc


def judge(state: Array, paths: Array, config: BimodalToyConfig) -> Judgement:
    """state (N, STATE_DIM), paths (N, T_p, 2) in metres; a path is the line from the start through its points."""
    line = np.concatenate([START.of(state)[:, None], paths], axis=1)
    collided = ~(_distance_to_origin(line) >= config.obstacle_radius_m)  # NaN collides
    x_m = _crossing(line)
    at_goal = np.linalg.norm(paths[:, -1] - GOAL.of(state), axis=-1) <= config.goal_radius_m
    return Judgement(collided, ~collided & (x_m < 0), ~collided & (x_m > 0), ~collided & at_goal)


def _distance_to_origin(line: Array) -> Array:
    """Shortest distance of each polyline (N, P, 2) to the origin: (N,)."""
    a, step = line[:, :-1], np.diff(line, axis=1)
    length2 = np.maximum((step**2).sum(-1), 1e-12)
    nearest = np.clip(-(a * step).sum(-1) / length2, 0.0, 1.0)
    distance_m: Array = np.linalg.norm(a + nearest[..., None] * step, axis=-1).min(axis=1)
    return distance_m


def _crossing(line: Array) -> Array:
    """x at which each polyline (N, P, 2) last crosses y = 0 upwards: (N,); NaN if it never does."""
    below, above = line[:, :-1], line[:, 1:]
    rises = (below[..., 1] < 0) & (above[..., 1] >= 0)
    last = rises.shape[1] - 1 - rises[:, ::-1].argmax(axis=1)
    each = np.arange(len(line))
    a, b = below[each, last], above[each, last]
    with np.errstate(divide="ignore", invalid="ignore"):
        x_m = a[:, 0] + (b[:, 0] - a[:, 0]) * -a[:, 1] / (b[:, 1] - a[:, 1])
    return np.where(rises.any(axis=1), x_m, np.nan)
