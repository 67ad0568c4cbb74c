"""Stop of an arm within one callback: holds until it rests, by the poses that arrive meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from dp_ros.control.control_clock import ControlClock
from dp_ros.ros.node.managed_node import ManagedNode

_STANDS_STILL_S = 1.0  # simulated time that does not pass for so long moves no arm
_LOOK_S = 0.005  # between two looks at simulated time
_BEAT_S = 0.02  # between two beats, whatever the period


def brake(
    node: ManagedNode,
    clock: ControlClock,
    period_ns: int,
    hold: Callable[[int], bool],
    beat: Callable[[], None],
) -> None:
    """Call `hold(time [ns])` each period for as long as it says that more holds are needed.

    beat: tells a watchdog that this process is alive. The stop ends early where simulated time stands still.
    """
    now_ns: int | None = clock.now_ns()
    while now_ns is not None and hold(now_ns):
        beat()
        now_ns = _next_period(node, clock, now_ns, period_ns, beat)


def _next_period(
    node: ManagedNode, clock: ControlClock, begin_ns: int, period_ns: int, beat: Callable[[], None]
) -> int | None:
    """The time a period later; None where simulated time stands still."""
    if clock.is_steady:
        end_s = time.monotonic() + period_ns / 1e9
        while (left_s := end_s - time.monotonic()) > 0.0:
            time.sleep(min(left_s, _BEAT_S))
            beat()
        node.hear("ee_pose", "watchdog/status")
        return clock.now_ns()
    deadline_s = time.monotonic() + max(_STANDS_STILL_S, 2.0 * period_ns / 1e9)
    while 0 <= (now_ns := clock.now_ns()) - begin_ns < period_ns:
        if time.monotonic() > deadline_s:
            return None
        time.sleep(_LOOK_S)
        node.hear("ee_pose", "watchdog/status", "/clock")
        beat()
    return now_ns
