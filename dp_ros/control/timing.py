"""Times of the commands that a realtime node sends: what its own work adds to a plan."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dp_ros.control.controller import PolicyDecision

_KEPT = 256  # ticks; a plan takes less


@dataclass(frozen=True)
class CommandTimes:
    """Times of one command [s]. A tick is due when the timer should have fired; its stamp is the time it did."""

    late: float  # from the due time of the tick to its stamp
    sent: float  # from the stamp to the publication
    # Of the first command from a plan, else None:
    plan: float | None = None  # inference, with the rest of an encoding that was in progress
    request: float | None = None  # from the due time of the tick that requested it to the publication
    wait: float | None = None  # from the end of the inference to the due time of the next tick

    @property
    def overhead(self) -> float:
        """Time beyond the plan and the wait for the next tick [s]."""
        if self.plan is None or self.request is None or self.wait is None:
            return self.late + self.sent
        return self.request - self.plan - self.wait


class CommandTimer:
    """Measures one tick after the other: `begin`, then `end` when the command is published."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock: that of `PlanResult.finished_s` [s]."""
        self._clock = clock
        self._due_s: OrderedDict[int, float] = OrderedDict()  # stamp of a tick -> when it was due
        self._stamp_s = self._late_s = 0.0

    def begin(self, stamp_ns: int, late_s: float) -> None:
        """Call it at the start of the tick stamped `stamp_ns`, which is `late_s` after its due time."""
        self._stamp_s, self._late_s = self._clock(), late_s
        self._due_s[stamp_ns] = self._stamp_s - late_s
        if len(self._due_s) > _KEPT:
            self._due_s.popitem(last=False)

    def end(self, decision: PolicyDecision) -> CommandTimes:
        """Call it when the command of the tick is published."""
        now_s = self._clock()
        plan = decision.plan
        requested_s = None if plan is None else self._due_s.get(plan.request.stamp_ns)
        if plan is None or requested_s is None:
            return CommandTimes(self._late_s, now_s - self._stamp_s)
        wait_s = max(0.0, self._stamp_s - self._late_s - plan.finished_s)
        plan_s = plan.waited_s + plan.duration_s
        return CommandTimes(self._late_s, now_s - self._stamp_s, plan_s, now_s - requested_s, wait_s)
