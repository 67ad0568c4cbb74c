"""Time of a control loop: it never jumps, while the clock that stamps messages may be set at any time."""

from __future__ import annotations

import time
from collections.abc import Callable

_SLEWED_NS = 1_000_000  # by less the clock that stamps is not set, but runs at another rate
_AT_ONCE_NS = 1_000_000  # longer between two readings, the process was interrupted; the error is half of it
_TRIES = 5


class ControlClock:
    """Steady time for intervals, ages and watchdogs; begins at the time of the clock that stamps messages.

    A stamp is compared with the clock that stamps once, when its message arrives. From then on its age grows by the
    steady clock. So a step of the clock that stamps (a time server, a person) shortens no interval: no command is
    faster because of it. Only a message in transit during the step has a wrong age.

    Simulated time is its own measure: then all times are the stamping clock's.
    """

    def __init__(
        self,
        stamping_ns: Callable[[], int],
        is_steady: bool = True,
        steady_ns: Callable[[], int] = time.monotonic_ns,
        on_set: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """stamping_ns: the clock that stamps messages. on_set: told by how many seconds that clock was set."""
        self._stamping_ns, self._steady_ns, self._on_set = stamping_ns, steady_ns, on_set
        self.is_steady = is_steady
        self._base_ns = self._ahead_ns = 0
        if is_steady:  # begin at the time of the clock that stamps
            self._base_ns, _ = self._read()

    def now_ns(self) -> int:
        self._compare()
        return self._now_ns()

    def _now_ns(self) -> int:
        return self._base_ns + self._steady_ns() if self.is_steady else self._stamping_ns()

    def from_stamp(self, stamp_ns: int) -> int:
        """Control time of the stamp of a message that arrives now."""
        self._compare()
        return stamp_ns - self._ahead_ns

    def to_stamp(self, time_ns: int) -> int:
        """Stamp for a message about that control time: the same one until the next `now_ns` or `from_stamp`."""
        return time_ns + self._ahead_ns

    def _compare(self) -> None:
        """Notice that the clock that stamps was set."""
        if not self.is_steady:
            return
        found_ns, took_ns = self._read()
        set_ns = found_ns - self._ahead_ns
        if took_ns <= _AT_ONCE_NS and abs(set_ns) > _SLEWED_NS:
            self._ahead_ns = found_ns
            self._on_set(set_ns / 1e9)

    def _read(self) -> tuple[int, int]:
        """(time by which the clock that stamps is ahead of control time, how long it took to read both)."""
        best = 0, 2**63
        for _ in range(_TRIES):
            begin_ns = self._now_ns()
            stamping_ns = self._stamping_ns()
            took_ns = self._now_ns() - begin_ns
            if took_ns < best[1]:
                best = stamping_ns - begin_ns - took_ns // 2, took_ns
            if took_ns <= _AT_ONCE_NS:
                break
        return best
