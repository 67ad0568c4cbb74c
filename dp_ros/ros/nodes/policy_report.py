"""Report of a policy node's decisions: verdicts, durations of plans, the log, and its diagnostics."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String

from dp_ros.control.controller import PolicyDecision
from dp_ros.control.ood import OodWatch
from dp_ros.control.safety import Verdict
from dp_ros.control.timing import CommandTimes
from dp_ros.ros.messages import conversions
from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import ManagedNode
from dp_ros.ros.node.repeated import Repeated
from dp_ros.streams import FrameAssembler

_NUMBERS = re.compile(r"(?<![\w.])[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|nan|inf)\b")
NO_STATS = "none: the checkpoint has no statistics of its training pictures: `dp_ros ood-stats` makes them"


class PolicyReport:
    """Publisher of `policy/verdict`, `policy/status`, `policy/plan_duration` and `policy/times`.

    `policy/verdict` has a message for each tick. `policy/status` has one for each change of the verdict or of the cause
    of a hold, with the cause, and is latched.
    """

    def __init__(
        self,
        node: ManagedNode,
        streams: FrameAssembler,
        ood: OodWatch,
        has_scores: bool,
        to_stamp: Callable[[int], int],
    ) -> None:
        """has_scores: the checkpoint has statistics for `ood`. to_stamp: control time [ns] -> stamp."""
        publisher, logger = node.add_publisher, node.get_logger()
        self._node, self._streams, self._logger = node, streams, logger
        self._ood, self._to_stamp = ood, to_stamp
        self._no_score = "none" if has_scores else NO_STATS
        if not has_scores:
            logger.info(f"ood_score: {NO_STATS}")
        self._each = publisher(String, "policy/verdict", qos.RELIABLE)
        self._changes = publisher(String, "policy/status", qos.LATCHED)
        self._durations = publisher(Float64, "policy/plan_duration", qos.RELIABLE_DEEP)
        self._counts: Counter[str] = Counter()
        self._plans_s: deque[float] = deque(maxlen=500)
        self._times_publisher = publisher(JointState, "policy/times", qos.RELIABLE_DEEP)
        self._overheads_s: deque[float] = deque(maxlen=500)
        self.verdict: Verdict | None = None  # of the newest tick since activation
        self.text = ""  # the same with its cause
        self._cause = ""  # of a hold, without the numbers in it
        self.warning = ""  # about pictures unlike those of the training; empty while there is none
        self._repeated = Repeated()
        self._is_logged = True  # whether a hold since the last motion is in the log
        self._is_unlike_logged = True

    def begin(self) -> None:
        """Before the first tick after an activation."""
        self.verdict, self.warning = None, ""
        self._repeated.clear()

    def end(self) -> None:
        """After the last command: what was told of it must still arrive."""
        self._changes.publish(String(data="inactive"))
        self._node.wait_until_acked(self._each, self._changes)

    def add(self, decision: PolicyDecision, times: CommandTimes | None) -> None:
        """Tell of a decision; `times` of its command in real time, where it was published."""
        verdict = decision.verdict
        if times is not None:
            self._overheads_s.append(times.overhead)
            if self._times_publisher.get_subscription_count():
                message = conversions.times_to_message(vars(times), self._to_stamp(decision.command.stamp_ns))
                self._times_publisher.publish(message)
        self._each.publish(String(data=verdict.value))
        self._counts[verdict.value] += 1
        self.text = ": ".join(filter(None, (verdict.value, decision.detail)))
        cause = " ".join(_NUMBERS.sub("", decision.detail).split()) if verdict.holds else ""
        if verdict is not self.verdict or cause != self._cause:
            self._report(decision)
        self.verdict, self._cause = verdict, cause
        self._warn()
        if decision.plan_s is not None:
            self._plans_s.append(decision.plan_s)
            self._durations.publish(Float64(data=decision.plan_s))

    @property
    def plan_p99_s(self) -> float:
        """Of the last 500 plans; 0 before the first."""
        return float(np.percentile(self._plans_s, 99)) if self._plans_s else 0.0

    def values(self) -> dict[str, str]:
        """For the diagnostics."""
        values = {
            "verdict": self.verdict.value if self.verdict else "none",
            "verdicts": ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items())),
            "ood_score": self._no_score if self._ood.score is None else f"{self._ood.score:.2f}",
        }
        for name, seconds in (("plan", self._plans_s), ("overhead", self._overheads_s)):
            p50, p99 = np.percentile(seconds or [0.0], (50, 99)) * 1e3
            values |= {f"{name}_ms_p50": f"{p50:.1f}", f"{name}_ms_p99": f"{p99:.1f}"}
        return values

    def _warn(self) -> None:
        """Log the beginning and the end of pictures unlike those of the training."""
        before, self.warning = self.warning, self._ood.warning
        if self.warning and not before:
            told = self._repeated("unlike", self.warning, time.monotonic())
            self._is_unlike_logged = bool(told)
            if told:
                self._logger.warning(told)
        elif before and not self.warning and self._is_unlike_logged:
            self._logger.info("the pictures are like those of the training again")

    def _report(self, decision: PolicyDecision) -> None:
        """Publish a verdict that is not that of the tick before, or has another cause, and log it: holds that repeat
        are logged less often.
        """
        text = self.text
        if decision.verdict is Verdict.HOLD_STALE:
            text = "; ".join([text, *self._streams.missing(decision.command.stamp_ns)])
        self._changes.publish(String(data=text))
        if decision.verdict.holds:
            if told := self._repeated(decision.verdict.value, text, time.monotonic()):
                self._logger.warning(told)
            went_on = self.verdict is not None and self.verdict.holds and self._is_logged
            self._is_logged = bool(told) or went_on
        elif self.verdict is not None and self.verdict.holds and self._is_logged:
            self._logger.info(f"moving again: {text}")
