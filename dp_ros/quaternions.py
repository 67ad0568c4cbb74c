"""Unit quaternions (x, y, z, w): validity and the angle between two orientations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

UNIT_TOLERANCE = 1e-3  # of the length, for rounding in other programs


def is_unit(quat_xyzw: ArrayLike) -> bool:
    """Whether this is four finite numbers of length 1, within UNIT_TOLERANCE."""
    quat = np.asarray(quat_xyzw, dtype=np.float64)
    return quat.shape == (4,) and bool(abs(np.linalg.norm(quat) - 1.0) <= UNIT_TOLERANCE)  # NaN fails


def angle_rad(a_xyzw: ArrayLike, b_xyzw: ArrayLike) -> float:
    """Smallest rotation between two unit quaternions, in [0, pi]; q and -q are the same orientation."""
    a, b = np.asarray(a_xyzw, dtype=np.float64), np.asarray(b_xyzw, dtype=np.float64)
    # atan2 of both differences: acos of the dot product loses half of the digits near zero.
    if np.dot(a, b) < 0.0:
        b = -b
    return float(4.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
