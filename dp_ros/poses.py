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
    # Plain floats: arrays of four numbers take twice as long, and a node calls this at every tick.
    a = np.asarray(a_xyzw, dtype=np.float64).tolist()
    b = np.asarray(b_xyzw, dtype=np.float64).tolist()
    # atan2 of both differences: acos of the dot product loses half of the digits near zero.
    apart = math.hypot(*(x - y for x, y in zip(a, b, strict=True)))
    together = math.hypot(*(x + y for x, y in zip(a, b, strict=True)))
    return 4.0 * math.atan2(min(apart, together), max(apart, together))


def rotated(quat_xyzw: ArrayLike, vectors: ArrayLike) -> Array:
    """Unit quaternion (..., 4), vectors (..., 3) -> the vectors turned by it (..., 3)."""
    quat, vector = np.asarray(quat_xyzw, np.float64), np.asarray(vectors, np.float64)
    axis, w = quat[..., :3], quat[..., 3:]
    twice = 2.0 * np.cross(axis, vector)
    turned: Array = vector + w * twice + np.cross(axis, twice)
    return turned


def composed(outer: Array, inner: Array) -> Array:
    """Poses (7,) of b in a and of c in b -> the pose of c in a (7,)."""
    a, b = orientation_of(outer), orientation_of(inner)
    xyz = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    quat = np.array([*xyz, a[3] * b[3] - a[:3] @ b[:3]])
    position_m = position_of(outer) + rotated(a, position_of(inner))
    return make_pose(position_m, quat / np.linalg.norm(quat))


def inverted(pose: Array) -> Array:
    """Pose (7,) of b in a -> the pose of a in b (7,)."""
    quat = orientation_of(pose) * np.array([-1.0, -1.0, -1.0, 1.0])
    return make_pose(-rotated(quat, position_of(pose)), quat)


def axis_angle(axis: ArrayLike, angle_rad: float) -> Array:
    """Turn about a unit axis (3,) -> quaternion (4,)."""
    half = angle_rad / 2.0
    return np.array([*(np.asarray(axis, np.float64) * math.sin(half)), math.cos(half)])
