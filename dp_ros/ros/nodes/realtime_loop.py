"""Timer that calls a tick at the pace of real time, and measures it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dp_ros.sim.realtime import Pace, RealtimeMeter


class RealtimeLoop:
    """Ticks on the steady clock: rclpy's own timers drop a period that comes too late, so simulated time would lag."""

    def __init__(
        self, dt_s: float, tick: Callable[[], None], add_timer: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        """`add_timer(period_s, callback)` makes a timer of rclpy."""
        self._tick = tick
        self._ended_s = time.monotonic()
        self._pace = Pace(dt_s, self._ended_s)
        self.meter = RealtimeMeter(dt_s, self._ended_s)
        self._is_slow = False
        self._timer = add_timer(dt_s, self._on_timer)

    def exclude(self, took_s: float) -> None:
        """Do not make up for the last `took_s`, in which the clock stood still between two episodes."""
        self._pace.exclude(took_s, time.monotonic())
        self.meter.exclude(took_s)

    def report(self, logger: Any) -> str:
        """Why the clock is too slow, else empty; a change is logged."""
        problem, was_slow = self.meter.problem(time.monotonic()), self._is_slow
        self._is_slow = bool(problem)
        if self._is_slow and not was_slow:
            logger.warning(problem)
        elif was_slow and not self._is_slow:
            logger.info("in real time again")
        return problem

    def _on_timer(self) -> None:
        now_s = time.monotonic()
        late_s = now_s - max(self._pace.next_s, self._ended_s)
        self._pace.begin(now_s)
        with self.meter.tick(max(0.0, late_s), now_s):
            self._tick()
        self._ended_s = time.monotonic()
        self._timer.timer_period_ns = max(1, round(1e9 * (self._pace.next_s - self._ended_s)))
        self._timer.reset()
