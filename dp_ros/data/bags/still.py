"""Times in which a demonstration stands still: their labels teach a policy to stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp_ros.actions import ACTION_DIM, POSITION, gripper_of

STILL_M, STILL_GRIPPER = 1e-3, 0.01  # changes up to these are none
NOTED_S = 1.0  # shorter stops are part of many tasks


@dataclass(frozen=True)
class Still:
    """Successive rows without a change: from `begin` to `end`, which is the first row after them."""

    begin: int
    end: int


def still_runs(rows: ArrayLike) -> list[Still]:
    """rows (N, ACTION_DIM), or several of them side by side (N, K * ACTION_DIM) -> runs of two rows or more.

    All rows of a run are as its first one, within STILL_M and STILL_GRIPPER: a slow motion is no run.
    """
    rows = np.asarray(rows, dtype=np.float64)
    blocks = rows.reshape(len(rows), -1, ACTION_DIM)
    runs, begin = [], 0
    for end in range(1, len(rows) + 1):
        if end < len(rows):
            change = np.abs(blocks[end] - blocks[begin])
            if POSITION.of(change).max() <= STILL_M and gripper_of(change).max() <= STILL_GRIPPER:
                continue
        if end - begin > 1:
            runs.append(Still(begin, end))
        begin = end
    return runs


def rows_to_keep(rows: ArrayLike, longest: int) -> NDArray[np.bool_]:
    """(N,): False in the middle of runs of more than `longest` rows, of which so many are kept.

    Kept are those next to motion: the last ones of a run that begins the episode, the first ones of a run that ends it,
    half of each in between.
    """
    rows = np.asarray(rows)
    keep = np.ones(len(rows), dtype=np.bool_)
    for run in still_runs(rows):
        if run.end - run.begin <= longest:
            continue
        if run.end == len(rows):
            first, last = longest, 0
        elif run.begin == 0:
            first, last = 0, longest
        else:
            first, last = longest - longest // 2, longest // 2
        keep[run.begin + first : run.end - last] = False
    return keep
