"""Real time of a simulated clock: when each tick is due, what share of real time is reached, and what takes the time.

Times are of the steady clock, given by the caller.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

WINDOW_S = 5.0
LEAST_FACTOR = 0.95
_LEAST_WINDOW_S = 1.0  # in less, one slow tick decides
_CATCH_UP = 0.75  # of the period: how soon a tick may follow the one before while the clock is late
_GIVEN_UP_S = 0.25  # delay that is not made up for
WAITING = "waiting for the processor"


class Pace:
    """Schedule of ticks: a delay is made up for by shorter periods, never by a burst of ticks.

    So a controller has at least `_CATCH_UP` of a period to answer an observation. A long delay is given up: simulated
    time falls behind, which the factor of `RealtimeMeter` shows.
    """

    def __init__(self, dt_s: float, now_s: float) -> None:
        self._dt_s, self._due_s = dt_s, now_s
        self.next_s = now_s  # when the next tick may begin

    def begin(self, now_s: float) -> None:
        """A tick begins; sets when the next one may."""
        self._due_s = max(self._due_s, now_s - _GIVEN_UP_S) + self._dt_s
        self.next_s = max(self._due_s, now_s + _CATCH_UP * self._dt_s)

    def exclude(self, took_s: float, now_s: float) -> None:
        """Put the schedule off by `took_s`, in which the clock stood still until now."""
        self._due_s += took_s
        self.next_s = max(self._due_s, now_s + _CATCH_UP * self._dt_s)


@dataclass
class _Tick:
    began_s: float
    excluded_s: float = 0.0
    parts_s: dict[str, float] = field(default_factory=dict)


class RealtimeMeter:
    """Real-time factor over the last `WINDOW_S`, and the CPU time of the parts of a tick."""

    def __init__(self, dt_s: float, now_s: float) -> None:
        self._dt_s, self._since_s = dt_s, now_s
        self._ticks: deque[_Tick] = deque()

    @contextmanager
    def tick(self, late_s: float, now_s: float) -> Iterator[None]:
        """Measure one tick, which begins now, `late_s` after it could have."""
        tick = _Tick(now_s, parts_s={WAITING: late_s})
        self._ticks.append(tick)
        self._drop_old(now_s)
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall_s, cpu_s = time.perf_counter() - began_s, time.thread_time() - cpu_s
            tick.parts_s[WAITING] += max(0.0, wall_s - cpu_s)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the tick that is being measured, or of nothing between ticks."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            self.add(name, time.thread_time() - began_s)

    def add(self, name: str, took_s: float) -> None:
        """Count `took_s` of CPU time as `name` in the tick that began last."""
        if self._ticks:
            parts_s = self._ticks[-1].parts_s
            parts_s[name] = parts_s.get(name, 0.0) + took_s

    def exclude(self, took_s: float) -> None:
        """Leave `took_s` out of the real time: between two episodes the clock stands still."""
        if self._ticks:
            self._ticks[-1].excluded_s += took_s

    def factor(self, now_s: float) -> float | None:
        """Simulated time by real time; None while too little has been measured."""
        self._drop_old(now_s)
        window_s = min(WINDOW_S, now_s - self._since_s)
        if window_s < _LEAST_WINDOW_S:
            return None
        window_s -= sum(tick.excluded_s for tick in self._ticks)
        return len(self._ticks) * self._dt_s / max(window_s, self._dt_s)

    def parts_ms(self) -> dict[str, float]:
        """Mean time of each part in a tick, the longest first."""
        sums_s: dict[str, float] = {}
        for tick in self._ticks:
            for name, took_s in tick.parts_s.items():
                sums_s[name] = sums_s.get(name, 0.0) + took_s
        count = max(1, len(self._ticks))
        return {
            name: 1e3 * total / count
            for name, total in sorted(sums_s.items(), key=lambda item: item[1], reverse=True)
        }

    def problem(self, now_s: float) -> str:
        """Why the clock is too slow, with the part that takes most of the time; empty while it keeps up."""
        factor = self.factor(now_s)
        if factor is None or factor >= LEAST_FACTOR:
            return ""
        why = f"real-time factor {factor:.2f}"
        if not self._ticks:
            return f"{why}: no tick in {WINDOW_S:g} s"
        name, took_ms = next(iter(self.parts_ms().items()))
        return f"{why}: a tick is {1e3 * self._dt_s:.1f} ms; most of it goes to {name}, {took_ms:.1f} ms"

    def _drop_old(self, now_s: float) -> None:
        while self._ticks and self._ticks[0].began_s <= now_s - WINDOW_S:
            self._ticks.popleft()
