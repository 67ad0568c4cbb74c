"""Path that a tool or its commands have gone, for drawings. Works without ROS."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SPACING_M = 0.002  # between two points of a path that was gone
_POINTS = 500


class Trace:
    """The last points of a path, thinned to one each 2 mm."""

    def __init__(self) -> None:
        self._points: deque[Array] = deque(maxlen=_POINTS)

    def add(self, position_m: Array) -> None:
        if not np.isfinite(position_m).all():
            return
        if not self._points or np.linalg.norm(position_m - self._points[-1]) >= _SPACING_M:
            self._points.append(np.array(position_m, np.float64))

    @property
    def points_m(self) -> Array:
        """(n, 3)."""
        return np.array(self._points).reshape(-1, 3)

    def clear(self) -> None:
        self._points.clear()
