"""Publisher of all that a replay of a policy node needs beside its inputs: `policy/session` and `policy/ticks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from std_msgs.msg import String

from dp_ros.control.controller import Controller
from dp_ros.control.tick_log import TickLog, TickRecord
from dp_ros.inference.session import PolicySession
from dp_ros.ros.node import qos
from dp_ros.streams import FrameAssembler


class PolicyTicks(TickLog):
    """The log of ticks on `policy/ticks`, for subscribers only; the session is latched."""

    def __init__(
        self,
        publisher: Callable[..., Any],
        controller: Controller,
        streams: FrameAssembler,
        session: PolicySession,
        to_stamp: Callable[[int], int],
    ) -> None:
        """`publisher(kind, topic, qos)` makes a publisher. to_stamp: see `TickLog`."""
        super().__init__(controller, tuple(streams.streams()), self._publish, to_stamp)
        self._publisher = publisher(String, "policy/ticks", qos.RELIABLE_DEEP)
        self._sessions = publisher(String, "policy/session", qos.LATCHED)
        self._sessions.publish(String(data=session.to_json()))

    def _publish(self, record: TickRecord) -> None:
        if self._publisher.get_subscription_count():
            self._publisher.publish(String(data=record.to_json()))
