"""Commands that an arm may still follow, and its distance from them."""

from __future__ import annotations

import math
from collections import deque

from dp_ros.control.safety import Array, Command

LAG_S = 0.25  # an arm may follow the commands with this delay
_APART_S = 0.01  # between two commands that are kept, however often they come


class Followed:
    """The commands of the last LAG_S."""

    def __init__(self) -> None:
        # (stamp [ns], position [m]); math.dist of tuples takes a tenth of its time for arrays
        self._recent: deque[tuple[int, tuple[float, ...]]] = deque()

    def add(self, command: Command) -> None:
        self.drop(command.stamp_ns)
        if not self._recent or command.stamp_ns - self._recent[-1][0] >= _APART_S * 1e9:
            self._recent.append((command.stamp_ns, tuple(command.position_m.tolist())))

    def drop(self, now_ns: int) -> None:
        """Forget the commands that the arm has had the time to follow."""
        while self._recent and not 0 <= now_ns - self._recent[0][0] <= LAG_S * 1e9:
            self._recent.popleft()

    def distance_m(self, last: Command, measured_m: Array) -> float:
        """From the measured position to the nearest of these commands and `last`: a fast arm is behind the last one."""
        measured = measured_m.tolist()
        nearest_m = math.dist(measured, last.position_m.tolist())
        for _, position_m in self._recent:
            nearest_m = min(nearest_m, math.dist(measured, position_m))
        return nearest_m
