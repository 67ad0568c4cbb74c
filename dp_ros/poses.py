"""Pose vectors (7,): position x, y, z in metres and orientation as a unit quaternion x, y, z, w."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

POSE_DIM = 7
_POSITION, _ORIENTATION = slice(0, 3), slice(3, 7)
UNIT_TOLERANCE = 1e-3  # of the length, for rounding in other programs


def make_pose(position_m: ArrayLike, quat_xyzw: ArrayLike) -> Array:
    """position (..., 3) and orientation (..., 4) -> (..., 7)."""
    return np.concatenate([np.asarray(position_m, np.float64), np.asarray(quat_xyzw, np.float64)], axis=-1)


def position_of(pose: Array) -> Array:
    """(..., 7) -> (..., 3) in metres."""
    return pose[..., _POSITION]


def orientation_of(pose: Array) -> Array:
    """(..., 7) -> (..., 4), x, y, z, w."""
    return pose[..., _ORIENTATION]


def is_unit(quat_xyzw: ArrayLike) -> bool:
    """Whether this is four finite numbers of length 1, within UNIT_TOLERANCE."""
    quat = np.asarray(quat_xyzw, dtype=np.float64)
    return quat.shape == (4,) and abs(math.hypot(*quat.tolist()) - 1.0) <= UNIT_TOLERANCE  # NaN fails


def angle_rad(a_xyzw: ArrayLike, b_xyzw: ArrayLike) -> float:
    """Smallest rotation between two unit quaternions, in [0, pi]; q and -q are the same orientation."""
    a, b = np.asarray(a_xyzw, dtype=np.float64), np.asarray(b_xyzw, dtype=np.float64)
    # atan2 of both differences: acos of the dot product loses half of the digits near zero.
    if np.dot(a, b) < 0.0:
        b = -b
    return float(4.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
