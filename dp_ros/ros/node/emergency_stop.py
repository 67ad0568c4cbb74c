"""Emergency stop on a topic: any publisher stops, and none releases what another one has stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from dp_ros.ros.node import qos
from dp_ros.ros.node.managed_node import ManagedNode

_ASKED_S = 1.0  # time for the latched messages of all publishers to arrive once they are connected
_GIVEN_UP_S = 10.0
_PERIOD_S = 0.1
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class EmergencyStop:
    """`emergency_stop`, a Bool: true stops; false releases, where no other publisher says true.

    DDS hands a message over without its publisher. But a new subscription gets the last message of each latched
    publisher. So after a false, where there are several publishers, they are asked in this way: only if none of them
    says true, the stop is released. Publishers that are not latched cannot be asked: beside others, they release
    nothing, and once they have ended, the others are asked.
    """

    def __init__(self, node: ManagedNode, on_stop: Callable[[], None]) -> None:
        """on_stop: called for each true. A stop lasts also while `listen` is not in force."""
        self._node, self._on_stop = node, on_stop
        self.is_asked = False  # whether the stop is in force
        self.why = ""  # why a false did not release it; empty while it would
        self._asking: Any = None  # subscription that asks the publishers
        self._heard: list[bool] = []
        self._asked_s, self._complete_s = -_ASKED_S, 0.0
        self._is_false_heard = False  # since the publishers were asked last
        self._awaits_end = False  # whether publishers that are not latched kept the others from being asked

    def listen(self) -> None:
        """Hear the topic until the counterpart of the node's present transition."""
        subscribe = self._node.add_subscription
        self._subscription = subscribe(Bool, "emergency_stop", self._on_message, qos.LATCHED)
        subscribe(Bool, "emergency_stop", self._on_message, qos.RELIABLE)  # of others
        self._node.add_timer(_PERIOD_S, self._decide)
        self._node.add(self, EmergencyStop._end_asking)

    @property
    def message(self) -> str:
        """Cause of the stop, for people; empty while it is released."""
        if not self.is_asked:
            return ""
        return "emergency stop on the topic emergency_stop" + (f" ({self.why})" if self.why else "")

    def _on_message(self, msg: Bool) -> None:
        if msg.data:
            self._end_asking()
            self.is_asked, self.why, self._is_false_heard, self._awaits_end = True, "", False, False
            self._on_stop()
        elif self.is_asked:
            self._is_false_heard = True
            self._decide()

    def _publishers(self) -> list[Any]:
        return list(self._node.get_publishers_info_by_topic(self._subscription.topic_name))

    def _ask(self) -> None:
        """Ask the publishers; release at once on a false where there is none that can be asked."""
        publishers, is_false_heard = self._publishers(), self._is_false_heard
        self._is_false_heard = False
        silent = [p for p in publishers if p.qos_profile.durability != DurabilityPolicy.TRANSIENT_LOCAL]
        if len(publishers) <= 1 and len(silent) == len(publishers):
            if is_false_heard:
                self.is_asked, self.why, self._awaits_end = False, "", False
            return
        self._awaits_end = bool(silent)
        if silent:
            names = ", ".join(sorted({p.node_name for p in silent}))
            self.why = f"one of {len(publishers)} publishers released it; {names}: make it latched, or end it"
            return
        self._heard, self._asked_s, self._complete_s = [], time.monotonic(), 0.0
        self._asking = self._node.create_subscription(
            Bool, self._subscription.topic_name, self._on_answer, _LATCHED
        )

    def _on_answer(self, msg: Bool) -> None:
        self._heard.append(bool(msg.data))

    def _decide(self) -> None:
        """Release when all publishers have answered, and none says true."""
        now_s = time.monotonic()
        if self._asking is None:
            if (self._is_false_heard or self._awaits_end) and now_s - self._asked_s >= _ASKED_S:
                self._ask()
            return
        count = len(self._publishers())
        if any(self._heard):
            self._end_asking()
            self.why = "another publisher still says true"
        elif len(self._heard) < max(count, 1) or self._asking.get_publisher_count() < count:
            self._complete_s = 0.0
            if now_s - self._asked_s > _GIVEN_UP_S:
                self._end_asking()
                self.why = "not all of its publishers have said false"
        elif not self._complete_s and count > 1:
            self._complete_s = now_s
        elif count <= 1 or now_s - self._complete_s > _ASKED_S:
            self._end_asking()
            self.is_asked, self.why = False, ""

    def _end_asking(self) -> None:
        if self._asking is not None:
            self._node.destroy_subscription(self._asking)
            self._asking = None
